//! Keys of TCP-MD5 (RFC 2385) and TCP-AO (RFC 5925).
//!
//! Linux facts: an MD5 key belongs to (socket, peer address) and must be on the listener before the SYN
//! arrives; deleting is setting a key of length 0; a key may be replaced on a live socket (T4).

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use super::option::{option, option_of, sockaddr_storage};
use super::step;
use crate::config::{AoAlgorithm, AoKeys, Authentication};

/// The kernel's limit, of TCP-AO keys too.
const MAX_MD5_KEY: usize = 80;

/// Puts the peer's keys on a socket that is about to connect.
///
/// # Errors
/// What the kernel says; where it has no TCP-AO, that.
pub fn sign(socket: &impl AsRawFd, remote: SocketAddr, authentication: &Authentication) -> io::Result<()> {
    match authentication {
        Authentication::Md5(password) => set_md5(socket, remote, &password.0),
        Authentication::Ao(keys) => {
            keys.keys.keys().try_for_each(|number| add_ao_key(socket, remote, keys, *number, *number == keys.current))
        }
        Authentication::None | Authentication::Missing(_) => Ok(()),
    }
}

/// Sets, replaces or (with an empty key) removes the TCP-MD5 key for a peer on a listening or connected socket.
///
/// # Errors
/// A key longer than 80 octets; a kernel without TCP-MD5.
fn set_md5(socket: &impl AsRawFd, remote: SocketAddr, key: &[u8]) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use std::mem;
    use std::net::Ipv4Addr;

    use super::super::{connecting, listening};
    use super::*;
    use crate::config::PeerConfig;

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
                // Past the capture of the test's output, so that it is seen and counted.
                let words = format!("\nSKIPPED: t7_ao_works_or_says_what_is_missing, but for its refusal: {error}\n");
                std::io::Write::write_all(&mut std::io::stdout(), words.as_bytes()).unwrap();
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
}
