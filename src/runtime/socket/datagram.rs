//! BFD's sockets (RFC 5881 section 4, RFC 5883): one that hears, with the TTL of each packet, and one a session that sends.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Protocol, Type};

use super::option::option;
pub use super::option::{prefer_this_thread, receive_with_ttl};
use super::{GTSM_TTL, TYPE_OF_SERVICE, new_socket, step, ttl_option, with_scope};
use crate::config::PeerConfig;

/// Ports tried for a BFD session before it is given up for now.
const BFD_PORT_ATTEMPTS: usize = 32;

/// A UDP socket that hears BFD packets together with their TTL (RFC 5881, RFC 5883).
///
/// # Errors
/// What the system says, with what to do about it.
pub fn bfd_listening(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
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
        let socket = new_socket(remote, Type::DGRAM, Protocol::UDP)?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
