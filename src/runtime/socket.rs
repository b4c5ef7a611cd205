//! TCP sockets for BGP: source address, TTL and GTSM, TCP-MD5, type of service. With `kernel/netlink.rs` the only
//! file with `unsafe`: the options below have no safe binding.
//!
//! Linux facts: an MD5 key belongs to (socket, peer address) and must be on the listener before the SYN
//! arrives; deleting is setting a key of length 0; a key may be replaced on a live socket (T4).
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{AoAlgorithm, AoKeys, Authentication, PeerConfig, Ttl};

/// Bytes of ours that the kernel may hold unsent, so that a KEEPALIVE never queues behind megabytes (S1).
const NOTSENT_LOWAT: libc::c_int = 128 * 1024;
/// Internetwork control, as every router marks BGP.
const TYPE_OF_SERVICE: libc::c_int = 0xc0;
/// What GTSM sends (RFC 5082).
const GTSM_TTL: libc::c_int = 255;
const LISTEN_BACKLOG: i32 = 4096;
const MAX_MD5_KEY: usize = 80;
/// Ports tried for a BFD session before it is given up for now.
const BFD_PORT_ATTEMPTS: usize = 32;
/// Precedence of the BFD thread.
const BFD_NICE: libc::c_int = -15;

/// The address to connect to, with the interface's index as scope for link-local addresses.
///
/// # Errors
/// A link-local address whose interface is missing or not (yet) there.
pub fn peer_address(config: &PeerConfig) -> io::Result<SocketAddr> {
    with_scope(config.address, config.port, config.interface.as_deref())
}

fn with_scope(address: IpAddr, port: u16, interface: Option<&str>) -> io::Result<SocketAddr> {
    let IpAddr::V6(v6) = address else { return Ok(SocketAddr::new(address, port)) };
    if !v6.is_unicast_link_local() {
        return Ok(SocketAddr::new(address, port));
    }
    let name = interface.ok_or_else(|| io::Error::other(format!("link-local peer {v6} has no interface: write it as {v6}%IFACE")))?;
    Ok(SocketAddr::V6(SocketAddrV6::new(v6, port, 0, interface_index(name)?)))
}

/// Index of an interface of this network namespace.
///
/// # Errors
/// No interface has the name.
pub fn interface_index(name: &str) -> io::Result<u32> {
    let text = CString::new(name).map_err(|_| io::Error::other(format!("interface name `{name}` holds a zero byte")))?;
    // SAFETY: `text` is a NUL-terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(text.as_ptr()) } {
        0 => Err(io::Error::new(io::ErrorKind::NotFound, format!("interface {name} does not exist"))),
        index => Ok(index),
    }
}

/// A socket ready to connect to the peer: non-blocking, bound to the source address, with TTL and key set.
///
/// # Errors
/// What the system says, with the step that failed.
pub fn connecting(config: &PeerConfig) -> io::Result<Socket> {
    let remote = peer_address(config)?;
    let socket = new_socket(remote)?;
    session_options(&socket, remote.ip(), config.ttl)?;
    match &config.authentication {
        Authentication::Md5(password) => set_md5(&socket, remote, &password.0)?,
        Authentication::Ao(keys) => {
            keys.keys.keys().try_for_each(|number| add_ao_key(&socket, remote, keys, *number, *number == keys.current))?
        }
        Authentication::None | Authentication::Missing(_) => {}
    }
    if let Some(local) = config.local_address {
        let bind = with_scope(local, 0, config.interface.as_deref())?;
        socket.bind(&bind.into()).map_err(|e| step(&e, format!("cannot use source address {local}")))?;
    }
    Ok(socket)
}

/// A listening socket on `address`; IPv6 sockets take no IPv4 connections.
///
/// # Errors
/// What the system says, with what to do about it.
pub fn listening(address: SocketAddr) -> io::Result<Socket> {
    let socket = new_socket(address)?;
    socket.set_reuse_address(true)?;
    // SYN-ACKs carry the listener's TTL: a peer with GTSM drops any but 255. The accepted socket gets its session's.
    let (level, name) = ttl_option(address.ip());
    option(&socket, level, name, &GTSM_TTL)?;
    socket.bind(&address.into()).map_err(|e| listen_error(address, &e))?;
    socket.listen(LISTEN_BACKLOG).map_err(|e| listen_error(address, &e))?;
    Ok(socket)
}

/// What a session's socket needs on both ends: TTL or GTSM (T8), no delay, little unsent data.
///
/// # Errors
/// What the system says, with the step that failed.
pub fn session_options(socket: &impl AsRawFd, remote: IpAddr, ttl: Ttl) -> io::Result<()> {
    option(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)?;
    option(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, &NOTSENT_LOWAT)?;
    let (sent, least) = match ttl {
        Ttl::Multihop => (64, None),
        Ttl::Gtsm { hops } => (GTSM_TTL, Some(256 - libc::c_int::from(hops.max(1)))),
        Ttl::Direct => (1, None),
    };
    let (level, ttl_name) = ttl_option(remote);
    let (tos_name, least_name) =
        if remote.is_ipv4() { (libc::IP_TOS, libc::IP_MINTTL) } else { (libc::IPV6_TCLASS, libc::IPV6_MINHOPCOUNT) };
    option(socket, level, ttl_name, &sent)?;
    option(socket, level, tos_name, &TYPE_OF_SERVICE)?;
    match least {
        Some(least) => option(socket, level, least_name, &least).map_err(|e| step(&e, "cannot set the least TTL (GTSM)".into())),
        None => Ok(()),
    }
}

fn ttl_option(address: IpAddr) -> (libc::c_int, libc::c_int) {
    if address.is_ipv4() { (libc::IPPROTO_IP, libc::IP_TTL) } else { (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) }
}

/// A UDP socket that hears BFD packets together with their TTL (RFC 5881, RFC 5883).
///
/// # Errors
/// What the system says, with what to do about it.
pub fn bfd_listening(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = datagram_socket(address)?;
    let (level, name) =
        if address.is_ipv4() { (libc::IPPROTO_IP, libc::IP_RECVTTL) } else { (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT) };
    option(&socket, level, name, &1)?;
    let hint = |e| step(&e, format!("cannot hear BFD on UDP {address} (another BFD daemon, such as bfdd, may run here)"));
    socket.bind(&address.into()).map_err(hint)?;
    Ok(socket.into())
}

/// A UDP socket that sends BFD packets to the peer from a port of its own, with TTL 255.
///
/// # Errors
/// What the system says, with the step that failed.
pub fn bfd_sending(config: &PeerConfig, port: u16) -> io::Result<UdpSocket> {
    let remote = with_scope(config.address, port, config.interface.as_deref())?;
    let unspecified = if remote.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let local = config.local_address.unwrap_or(unspecified);
    let mut last = io::Error::other("no port is free");
    for _ in 0..BFD_PORT_ATTEMPTS {
        let socket = datagram_socket(remote)?;
        let (level, ttl_name) = ttl_option(remote.ip());
        option(&socket, level, ttl_name, &GTSM_TTL)?;
        let tos_name = if remote.is_ipv4() { libc::IP_TOS } else { libc::IPV6_TCLASS };
        option(&socket, level, tos_name, &TYPE_OF_SERVICE)?;
        match socket.bind(&with_scope(local, random_bfd_port(), config.interface.as_deref())?.into()) {
            Ok(()) => {
                socket.connect(&remote.into()).map_err(|e| step(&e, format!("cannot send BFD to {remote}")))?;
                return Ok(socket.into());
            }
            Err(error) => last = error,
        }
    }
    Err(step(&last, format!("cannot send BFD from {local}")))
}

/// A source port as RFC 5881 section 4 wants it: 49152 to 65535.
fn random_bfd_port() -> u16 {
    use std::hash::{BuildHasher, Hasher};
    let number = std::hash::RandomState::new().build_hasher().finish();
    0xc000 | (number & 0x3fff) as u16
}

fn datagram_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Room for one control message with an integer, aligned as the kernel wants it.
#[repr(C, align(8))]
struct ControlData([u8; 64]);

/// Receives a datagram: its length, where it comes from, and its TTL or hop limit.
///
/// # Errors
/// The system's; `WouldBlock` when there is nothing.
pub fn receive_with_ttl(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<u8>)> {
    let mut control = ControlData([0; 64]);
    let mut parts = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let fd = socket.as_raw_fd();
    let mut header_of_control = (0, None);
    // SAFETY: `try_init` hands a sockaddr_storage of `length` bytes that lives through the closure; `parts`, `buffer` and
    // `control` outlive the call too, and the header names their true sizes. The control messages that the kernel has
    // written are walked with its own macros inside `msg_controllen`.
    let ((), from) = unsafe {
        socket2::SockAddr::try_init(|storage, length| {
            let mut message: libc::msghdr = mem::zeroed();
            message.msg_name = storage.cast();
            message.msg_namelen = *length;
            message.msg_iov = &raw mut parts;
            message.msg_iovlen = 1;
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = control.0.len();
            let received = libc::recvmsg(fd, &raw mut message, 0);
            if received < 0 {
                return Err(io::Error::last_os_error());
            }
            *length = message.msg_namelen;
            header_of_control = (received.unsigned_abs(), ttl_of(&message));
            Ok(())
        })
    }?;
    let from = from.as_socket().ok_or_else(|| io::Error::other("a datagram without a sender's address"))?;
    Ok((header_of_control.0, from, header_of_control.1))
}

/// The TTL or hop limit among the control messages.
///
/// # Safety
/// `message` is as `recvmsg` has left it, and its control buffer is alive.
unsafe fn ttl_of(message: &libc::msghdr) -> Option<u8> {
    // SAFETY: the macros walk the buffer that the caller vouches for; each TTL message carries one int.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = control.as_ref() {
            let kind = (header.cmsg_level, header.cmsg_type);
            if kind == (libc::IPPROTO_IP, libc::IP_TTL) || kind == (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) {
                let value = libc::CMSG_DATA(control).cast::<libc::c_int>().read_unaligned();
                return u8::try_from(value).ok();
            }
            control = libc::CMSG_NXTHDR(message, control);
        }
    }
    None
}

/// Asks the scheduler to prefer this thread; without CAP_SYS_NICE it stays as it is.
pub fn prefer_this_thread() {
    // SAFETY: no pointers; 0 is the calling thread on Linux.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, BFD_NICE) };
}

/// Sets, replaces or (with an empty key) removes the TCP-MD5 key for a peer on a listening or connected socket.
///
/// # Errors
/// A key longer than 80 octets; a kernel without TCP-MD5.
pub fn set_md5(socket: &impl AsRawFd, remote: SocketAddr, key: &[u8]) -> io::Result<()> {
    if key.len() > MAX_MD5_KEY {
        return Err(io::Error::other(format!("TCP-MD5 key for {} has {} octets; the kernel takes {MAX_MD5_KEY}", remote.ip(), key.len())));
    }
    let mut signature = TcpMd5Sig {
        address: sockaddr_storage(remote),
        flags: 0,
        prefix_length: 0,
        key_length: u16::try_from(key.len()).unwrap_or_default(),
        interface: 0,
        key: [0; MAX_MD5_KEY],
    };
    signature.key[..key.len()].copy_from_slice(key);
    match option(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &signature) {
        // Removing a key that is not there is what was wanted.
        Err(error) if key.is_empty() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map_err(|e| step(&e, format!("cannot set the TCP-MD5 key for {}", remote.ip()))),
    }
}

/// Brings the keys of a listening socket for one peer from `old` to `new`.
///
/// # Errors
/// What the kernel says; where it has no TCP-AO, that.
pub fn change_keys(socket: &impl AsRawFd, remote: SocketAddr, old: &Authentication, new: &Authentication) -> io::Result<()> {
    match (old, new) {
        (_, Authentication::Md5(password)) => set_md5(socket, remote, &password.0),
        (_, Authentication::Ao(keys)) => {
            if let Authentication::Ao(old) = old {
                let gone = old.keys.iter().filter(|(number, key)| keys.keys.get(number) != Some(key));
                gone.for_each(|(number, _)| forget_ao_key(socket, remote, *number));
            }
            keys.keys.keys().try_for_each(|number| add_ao_key(socket, remote, keys, *number, false))
        }
        (Authentication::Md5(_), _) => set_md5(socket, remote, &[]),
        (Authentication::Ao(old), _) => {
            old.keys.keys().for_each(|number| forget_ao_key(socket, remote, *number));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Changes the keys of a live session without resetting it (T4, T7): new keys first, then the one to use, and what is no longer
/// configured goes last, as far as the peer has stopped using it.
///
/// # Errors
/// What the kernel says.
pub fn roll_over(socket: &impl AsRawFd, remote: SocketAddr, old: &Authentication, new: &Authentication) -> io::Result<()> {
    match (old, new) {
        (_, Authentication::Md5(password)) => set_md5(socket, remote, &password.0),
        (Authentication::Ao(old), Authentication::Ao(keys)) => {
            keys.keys.keys().try_for_each(|number| add_ao_key(socket, remote, keys, *number, false))?;
            let info =
                TcpAoInfo { flags: AO_SET_CURRENT | AO_SET_RNEXT, current: keys.current, rnext: keys.current, ..TcpAoInfo::default() };
            option(socket, libc::IPPROTO_TCP, TCP_AO_INFO, &info).map_err(|e| step(&e, "cannot change to another TCP-AO key".into()))?;
            old.keys.keys().filter(|number| !keys.keys.contains_key(number)).for_each(|number| forget_ao_key(socket, remote, *number));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether an accepted connection is protected as asked: one that came before its TCP-AO key was there is not (T7).
///
/// # Errors
/// It is not.
pub fn is_protected(socket: &impl AsRawFd, authentication: &Authentication) -> io::Result<()> {
    match authentication {
        Authentication::Ao(_) => option_of::<TcpAoInfo>(socket, libc::IPPROTO_TCP, TCP_AO_INFO)
            .map(drop)
            .map_err(|e| step(&ao_error(e), "the connection is not protected by TCP-AO".into())),
        Authentication::None | Authentication::Md5(_) | Authentication::Missing(_) => Ok(()),
    }
}

/// Adds one TCP-AO key; one that is there already is what was wanted.
fn add_ao_key(socket: &impl AsRawFd, remote: SocketAddr, keys: &AoKeys, number: u8, current: bool) -> io::Result<()> {
    let added = TcpAoAdd::new(remote, keys, number, current).ok_or_else(|| io::Error::other(format!("there is no usable key {number}")))?;
    match option(socket, libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &added) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result.map_err(|e| step(&ao_error(e), format!("cannot set TCP-AO key {number} for {}", remote.ip()))),
    }
}

/// Removes one; a key that is in use, or not there, stays as it is.
fn forget_ao_key(socket: &impl AsRawFd, remote: SocketAddr, number: u8) {
    let removed = TcpAoDelete {
        address: sockaddr_storage(remote),
        prefix: prefix_of(remote),
        sent: number,
        received: number,
        ..TcpAoDelete::empty()
    };
    let _ = option(socket, libc::IPPROTO_TCP, TCP_AO_DEL_KEY, &removed);
}

fn ao_error(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => {
            io::Error::new(error.kind(), "this kernel has no TCP-AO: it needs Linux 6.7 or later, built with CONFIG_TCP_AO")
        }
        _ => error,
    }
}

fn prefix_of(address: SocketAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

// Numbers and structs of `linux/tcp.h` since Linux 6.7, which `libc` does not have yet.
const TCP_AO_ADD_KEY: libc::c_int = 38;
const TCP_AO_DEL_KEY: libc::c_int = 39;
const TCP_AO_INFO: libc::c_int = 40;
const AO_SET_CURRENT: u32 = 1;
const AO_SET_RNEXT: u32 = 2;
/// Octets of the authentication code: both algorithms of RFC 5926 are cut to 96 bits.
const AO_CODE_LENGTH: u8 = 12;

/// `struct tcp_ao_add`.
#[repr(C, align(8))]
struct TcpAoAdd {
    address: libc::sockaddr_storage,
    algorithm: [u8; 64],
    interface: i32,
    flags: u32,
    reserved: u16,
    prefix: u8,
    sent: u8,
    received: u8,
    code_length: u8,
    key_flags: u8,
    key_length: u8,
    key: [u8; MAX_MD5_KEY],
}

impl TcpAoAdd {
    fn new(remote: SocketAddr, keys: &AoKeys, number: u8, current: bool) -> Option<Self> {
        let master = &keys.keys.get(&number)?.0;
        let name: &[u8] = match keys.algorithm {
            AoAlgorithm::HmacSha1 => b"hmac(sha1)",
            AoAlgorithm::CmacAes128 => b"cmac(aes128)",
        };
        let (mut algorithm, mut key) = ([0; 64], [0; MAX_MD5_KEY]);
        algorithm.get_mut(..name.len())?.copy_from_slice(name);
        key.get_mut(..master.len())?.copy_from_slice(master);
        Some(Self {
            address: sockaddr_storage(remote),
            algorithm,
            interface: 0,
            flags: if current { AO_SET_CURRENT | AO_SET_RNEXT } else { 0 },
            reserved: 0,
            prefix: prefix_of(remote),
            sent: number,
            received: number,
            code_length: AO_CODE_LENGTH,
            key_flags: 0,
            key_length: u8::try_from(master.len()).ok()?,
            key,
        })
    }
}

/// `struct tcp_ao_del`.
#[repr(C, align(8))]
struct TcpAoDelete {
    address: libc::sockaddr_storage,
    interface: i32,
    flags: u32,
    reserved: u16,
    prefix: u8,
    sent: u8,
    received: u8,
    current: u8,
    rnext: u8,
    key_flags: u8,
}

impl TcpAoDelete {
    fn empty() -> Self {
        let address = sockaddr_storage(SocketAddr::from(([0, 0, 0, 0], 0)));
        Self { address, interface: 0, flags: 0, reserved: 0, prefix: 0, sent: 0, received: 0, current: 0, rnext: 0, key_flags: 0 }
    }
}

/// `struct tcp_ao_info_opt`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Default)]
struct TcpAoInfo {
    flags: u32,
    reserved: u16,
    current: u8,
    rnext: u8,
    good: u64,
    bad: u64,
    key_not_found: u64,
    required: u64,
    dropped_icmp: u64,
}

/// `struct tcp_md5sig` of `linux/tcp.h`; `libc` has the option's number but not the struct.
#[repr(C)]
struct TcpMd5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: libc::c_int,
    key: [u8; MAX_MD5_KEY],
}

fn sockaddr_storage(address: SocketAddr) -> libc::sockaddr_storage {
    // The kernel compares the address only; a port here would make it refuse some keys.
    let mut bare = address;
    bare.set_port(0);
    let raw = socket2::SockAddr::from(bare);
    // SAFETY: all-zero bytes are a valid sockaddr_storage, a plain C struct.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    // SAFETY: both point to at least `raw.len()` valid bytes: socket2 keeps its address in a sockaddr_storage too.
    unsafe {
        std::ptr::copy_nonoverlapping(raw.as_ptr().cast::<u8>(), std::ptr::from_mut(&mut storage).cast::<u8>(), raw.len() as usize);
    }
    storage
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn option<T>(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    set_raw(socket.as_raw_fd(), level, name, value)
}

fn set_raw<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(mem::size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` is a live T and `length` its size; the kernel only reads it.
    let result = unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn option_of<T: Copy + Default>(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut length = libc::socklen_t::try_from(mem::size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` is a live T of plain integers, `length` its size; the kernel writes at most that much.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, std::ptr::from_mut(&mut value).cast(), &raw mut length) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

fn step(error: &io::Error, what: String) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn listen_error(address: SocketAddr, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the port is taken: another BGP speaker runs here (`ss -ltnp 'sport = :{}'` names it); stop it, or set listenPort in BGPConfiguration",
            address.port()
        ),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: run as root, give the capability, or set listenPort in BGPConfiguration".into()
        }
        io::ErrorKind::AddrNotAvailable => "the address is on no interface of this host (yet)".into(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_struct_has_the_kernels_size() {
        // linux/tcp.h: 128 (sockaddr_storage) + 1 + 1 + 2 + 4 + 80.
        assert_eq!(mem::size_of::<TcpMd5Sig>(), 216);
    }

    fn ao(keys: &[(u8, &str)], current: u8) -> AoKeys {
        let keys = keys.iter().map(|(number, key)| (*number, crate::config::Password(key.as_bytes().into()))).collect();
        AoKeys { keys, current, algorithm: AoAlgorithm::CmacAes128 }
    }

    #[test]
    fn t7_ao_structs_have_the_kernels_layout() {
        assert_eq!((mem::size_of::<TcpAoAdd>(), mem::size_of::<TcpAoDelete>(), mem::size_of::<TcpAoInfo>()), (288, 144, 48));
        let offsets = [
            mem::offset_of!(TcpAoAdd, algorithm),
            mem::offset_of!(TcpAoAdd, interface),
            mem::offset_of!(TcpAoAdd, flags),
            mem::offset_of!(TcpAoAdd, prefix),
            mem::offset_of!(TcpAoAdd, key_length),
            mem::offset_of!(TcpAoAdd, key),
            mem::offset_of!(TcpAoDelete, prefix),
            mem::offset_of!(TcpAoDelete, key_flags),
            mem::offset_of!(TcpAoInfo, current),
            mem::offset_of!(TcpAoInfo, good),
        ];
        assert_eq!(offsets, [128, 192, 196, 202, 207, 208, 138, 143, 6, 8]);
        let added = TcpAoAdd::new("192.0.2.1:179".parse().unwrap(), &ao(&[(7, "secret"), (9, "x")], 7), 7, true).unwrap();
        assert_eq!((&added.algorithm[..13], &added.key[..7]), (&b"cmac(aes128)\0"[..], &b"secret\0"[..]));
        assert_eq!((added.prefix, added.sent, added.received, added.code_length, added.key_length, added.flags), (32, 7, 7, 12, 6, 3));
        assert!(TcpAoAdd::new("[::1]:0".parse().unwrap(), &ao(&[(7, "secret")], 7), 8, true).is_none(), "no such key");
    }

    /// Where the kernel has TCP-AO a key is set, rolled over and removed; where it has not, the error says so, and nothing runs unprotected.
    #[test]
    fn t7_ao_works_or_says_what_is_missing() {
        let listener = listening("127.0.0.1:0".parse().unwrap()).unwrap();
        let remote = "127.0.0.9:0".parse().unwrap();
        let (first, second) = (Authentication::Ao(ao(&[(1, "a")], 1)), Authentication::Ao(ao(&[(1, "a"), (2, "b")], 2)));
        match change_keys(&listener, remote, &Authentication::None, &first) {
            Ok(()) => {
                change_keys(&listener, remote, &first, &second).unwrap();
                change_keys(&listener, remote, &second, &Authentication::None).unwrap();
            }
            Err(error) => {
                println!("SKIPPED: {error}");
                assert!(error.to_string().contains("Linux 6.7"), "{error}");
                let mut config = PeerConfig::new(
                    "p",
                    (crate::types::Asn(1), crate::types::RouterId(Ipv4Addr::LOCALHOST)),
                    (remote.ip(), crate::types::Asn(2)),
                );
                config.authentication = first.clone();
                assert!(connecting(&config).unwrap_err().to_string().contains("Linux 6.7"));
            }
        }
        assert!(is_protected(&listener, &first).is_err() && is_protected(&listener, &Authentication::None).is_ok());
    }

    #[test]
    fn md5_key_is_set_replaced_and_removed() {
        let listener = listening("127.0.0.1:0".parse().unwrap()).unwrap();
        let remote = "127.0.0.9:0".parse().unwrap();
        set_md5(&listener, remote, b"secret").unwrap();
        set_md5(&listener, remote, b"other").unwrap();
        set_md5(&listener, remote, b"").unwrap();
        set_md5(&listener, remote, b"").unwrap();
        assert!(set_md5(&listener, remote, &[b'x'; 81]).is_err());
    }

    #[test]
    fn t8_a_listener_answers_peers_with_gtsm() {
        let listener = listening("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(listener.ttl_v4().unwrap(), 255, "SYN-ACKs carry the listener's TTL");
    }

    #[test]
    fn a_taken_port_says_what_to_do() {
        let first = listening("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap().as_socket().unwrap();
        let error = listening(address).unwrap_err();
        assert!(error.to_string().contains("the port is taken"), "{error}");
    }

    #[test]
    fn b1_the_ttl_of_a_datagram_is_told() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = bfd_listening(address.parse().unwrap()).unwrap();
            let to = listener.local_addr().unwrap();
            let mut config =
                PeerConfig::new("p", (crate::types::Asn(1), crate::types::RouterId(Ipv4Addr::LOCALHOST)), (to.ip(), crate::types::Asn(2)));
            config.local_address = Some(to.ip());
            let sender = bfd_sending(&config, to.port()).unwrap();
            assert!(sender.local_addr().unwrap().port() >= 49152);
            let mut buffer = [0; 8];
            let nothing = receive_with_ttl(&listener, &mut buffer).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            sender.send(b"hello").unwrap();
            let (length, from, ttl) = receive_with_ttl(&listener, &mut buffer).unwrap();
            assert_eq!((&buffer[..length], from, ttl), (&b"hello"[..], sender.local_addr().unwrap(), Some(255)));
            let (level, name) = ttl_option(to.ip());
            option(&sender, level, name, &254).unwrap();
            sender.send(b"far").unwrap();
            assert_eq!(receive_with_ttl(&listener, &mut buffer).unwrap().2, Some(254));
        }
    }

    #[test]
    fn link_local_needs_an_interface() {
        let error = with_scope("fe80::1".parse().unwrap(), 179, None).unwrap_err();
        assert!(error.to_string().contains("%IFACE"), "{error}");
        assert_eq!(with_scope("fe80::1".parse().unwrap(), 179, Some("lo")).unwrap().to_string(), "[fe80::1%1]:179");
    }
}
