//! Sockets for BGP and BFD: source address, TTL and GTSM, type of service, keys.
//!
//! Here are TCP's two ends; [`signing`] has the keys of TCP-MD5 and TCP-AO, [`datagram`] BFD's sockets, and [`mod@option`] is the one
//! room that calls the system without a safe binding.

mod datagram;
mod option;
mod signing;

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;

pub use datagram::{bfd_listening, bfd_sending, prefer_this_thread, receive_with_ttl};
pub use option::interface_index;
pub use signing::{change_keys, roll_over};

use crate::config::{PeerConfig, Ttl};
use option::option;
use signing::is_protected;

/// Bytes of ours that the kernel may hold unsent, so that a KEEPALIVE never queues behind megabytes (S1).
const NOTSENT_LOWAT: libc::c_int = 128 * 1024;
/// Internetwork control, as every router marks BGP.
const TYPE_OF_SERVICE: libc::c_int = 0xc0;
/// What GTSM sends (RFC 5082).
const GTSM_TTL: libc::c_int = 255;
const LISTEN_BACKLOG: i32 = 4096;

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

/// A socket ready to connect to the peer: non-blocking, bound to the source address, with TTL and key set.
///
/// # Errors
/// What the system says, with the step that failed.
pub fn connecting(config: &PeerConfig) -> io::Result<Socket> {
    let remote = peer_address(config)?;
    let socket = new_socket(remote, Type::STREAM, Protocol::TCP)?;
    session_options(&socket, remote.ip(), config.ttl)?;
    signing::sign(&socket, remote, &config.authentication)?;
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
    let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    // SYN-ACKs carry the listener's TTL: a peer with GTSM drops any but 255. The accepted socket gets its session's.
    let (level, name) = ttl_option(address.ip());
    option(&socket, level, name, &GTSM_TTL)?;
    // So that the TTL of what comes before a session's least TTL is set can be judged.
    option(&socket, libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, &1)?;
    socket.bind(&address.into()).map_err(|e| listen_error(address, &e))?;
    socket.listen(LISTEN_BACKLOG).map_err(|e| listen_error(address, &e))?;
    Ok(socket)
}

/// Makes an accepted connection the peer's, if it may be: it is signed as asked, and has come from no further than GTSM allows.
///
/// # Errors
/// It may not, or what the system says, with the step that failed.
pub fn accepted(stream: &TcpStream, remote: IpAddr, config: &PeerConfig) -> io::Result<SocketAddr> {
    is_protected(stream, &config.authentication)?;
    session_options(stream, remote, config.ttl)?;
    is_near(stream, config.ttl)?;
    stream.local_addr()
}

/// The least TTL holds from now on; what has come before is judged by the SYN. Where the kernel has kept none (SYN cookies),
/// nothing may have come yet (T8).
fn is_near(stream: &TcpStream, ttl: Ttl) -> io::Result<()> {
    let Some(least) = least_ttl(ttl) else { return Ok(()) };
    match option::ttl_of_syn(stream) {
        Some(ttl) if libc::c_int::from(ttl) >= least => Ok(()),
        Some(ttl) => Err(io::Error::other(format!("the peer is too far away for ttlSecurity: TTL {ttl} where {least} is the least"))),
        None if SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) => Ok(()),
        None => Err(io::Error::other("data came before ttlSecurity could judge it")),
    }
}

/// What GTSM lets in (RFC 5082 section 3).
fn least_ttl(ttl: Ttl) -> Option<libc::c_int> {
    match ttl {
        Ttl::Gtsm { hops } => Some(256 - libc::c_int::from(hops.max(1))),
        Ttl::Multihop | Ttl::Direct => None,
    }
}

/// What a session's socket needs on both ends: TTL or GTSM (T8), no delay, little unsent data.
///
/// # Errors
/// What the system says, with the step that failed.
fn session_options(socket: &impl AsRawFd, remote: IpAddr, ttl: Ttl) -> io::Result<()> {
    option(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)?;
    option(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, &NOTSENT_LOWAT)?;
    let sent = match ttl {
        Ttl::Multihop => 64,
        Ttl::Gtsm { .. } => GTSM_TTL,
        Ttl::Direct => 1,
    };
    let (level, ttl_name) = ttl_option(remote);
    let (tos_name, least_name) =
        if remote.is_ipv4() { (libc::IP_TOS, libc::IP_MINTTL) } else { (libc::IPV6_TCLASS, libc::IPV6_MINHOPCOUNT) };
    option(socket, level, ttl_name, &sent)?;
    option(socket, level, tos_name, &TYPE_OF_SERVICE)?;
    match least_ttl(ttl) {
        Some(least) => option(socket, level, least_name, &least).map_err(|e| step(&e, "cannot set the least TTL (GTSM)".into())),
        None => Ok(()),
    }
}

fn ttl_option(address: IpAddr) -> (libc::c_int, libc::c_int) {
    if address.is_ipv4() { (libc::IPPROTO_IP, libc::IP_TTL) } else { (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) }
}

fn new_socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// An error with the step that failed in front.
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
    use crate::types::{Asn, RouterId};

    #[test]
    fn t8_a_listener_answers_peers_with_gtsm() {
        let listener = listening("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(listener.ttl_v4().unwrap(), 255, "SYN-ACKs carry the listener's TTL");
    }

    fn config(address: &str, ttl: Ttl) -> PeerConfig {
        let (asn, router_id) = (Asn(64512), RouterId(std::net::Ipv4Addr::LOCALHOST));
        PeerConfig { ttl, ..PeerConfig::new("peer", (asn, router_id), (address.parse().unwrap(), Asn(65001))) }
    }

    /// Calico's sessions are `multihop`; TTL 1 is for a peer that is said to be on a network of ours, 255 for GTSM.
    #[test]
    fn t9_the_ttl_is_calicos_unless_told_otherwise() {
        let asn = (Asn(64512), RouterId(std::net::Ipv4Addr::LOCALHOST));
        assert_eq!(PeerConfig::new("peer", asn, ("127.0.0.1".parse().unwrap(), Asn(65001))).ttl, Ttl::Multihop);
        for (ttl, sent, least) in
            [(Ttl::Multihop, 64, 0), (Ttl::Direct, 1, 0), (Ttl::Gtsm { hops: 1 }, 255, 255), (Ttl::Gtsm { hops: 3 }, 255, 253)]
        {
            let socket = connecting(&config("127.0.0.1", ttl)).unwrap();
            let minimum: libc::c_int = option::option_of(&socket, libc::IPPROTO_IP, libc::IP_MINTTL).unwrap();
            assert_eq!((socket.ttl_v4().unwrap(), minimum), (sent, least), "{ttl:?}");
            let socket = connecting(&config("::1", ttl)).unwrap();
            let minimum: libc::c_int = option::option_of(&socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT).unwrap();
            assert_eq!((socket.unicast_hops_v6().unwrap(), minimum), (sent, least), "{ttl:?}");
        }
    }

    /// Two listeners on one port, each for its family; an IPv4 peer never comes as `::ffff:a.b.c.d`.
    #[test]
    fn t6_t10_each_family_has_its_listener() {
        let v6 = listening("[::]:0".parse().unwrap()).unwrap();
        let port = v6.local_addr().unwrap().as_socket().unwrap().port();
        let v4 = listening(SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), port)).unwrap();
        assert!(v6.only_v6().unwrap() && v4.reuse_address().unwrap() && v6.reuse_address().unwrap());
        for socket in [&v4, &v6] {
            // A queue that is no longer than 128, the usual one, would turn peers away in a flood of strangers.
            let _client = std::net::TcpStream::connect(("localhost", port));
            assert!(socket.nonblocking().unwrap());
        }
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, from) = loop {
            match v4.accept() {
                Ok((accepted, from)) if from.as_socket() == client.local_addr().ok() => break (accepted, from),
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        assert!(from.as_socket().unwrap().is_ipv4() && accepted.local_addr().unwrap().as_socket().unwrap().is_ipv4());
    }

    #[test]
    fn a_taken_port_says_what_to_do() {
        let first = listening("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap().as_socket().unwrap();
        let error = listening(address).unwrap_err();
        assert!(error.to_string().contains("the port is taken"), "{error}");
    }

    #[test]
    fn link_local_needs_an_interface() {
        let error = with_scope("fe80::1".parse().unwrap(), 179, None).unwrap_err();
        assert!(error.to_string().contains("%IFACE"), "{error}");
        assert_eq!(with_scope("fe80::1".parse().unwrap(), 179, Some("lo")).unwrap().to_string(), "[fe80::1%1]:179");
    }
}
