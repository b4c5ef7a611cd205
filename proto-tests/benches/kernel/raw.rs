//! The least that can be done: messages built beforehand, many a send, an answer asked of the last one of a send.
//!
//! The attributes are those that margay writes too: prefix, metric, gateway and interface. The best of the settings is what the others
//! are measured against.

use std::io;
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};

use crate::routes::{Family, METRIC, Verb, World, scatter};
use crate::{Sample, sample};

/// Octets a send.
const SENDS: [(usize, &str); 2] = [(64 << 10, "64 KB"), (1 << 20, "1 MB")];

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

/// Each setting adds, replaces and deletes all routes.
pub fn run(world: &World, family: Family, prefixes: &[IpNet], tell: &mut impl FnMut(Sample)) {
    let mut scattered = prefixes.to_vec();
    scatter(&mut scattered);
    for (octets, name) in SENDS {
        for (order, prefixes) in [("sorted", prefixes), ("scattered", &scattered)] {
            let socket = Raw::open().expect("a netlink socket");
            for verb in Verb::ALL {
                let sends = prebuilt(world, family, prefixes, verb, octets);
                tell(sample(&format!("raw, {name}, {order}"), family, verb, prefixes.len(), || {
                    sends.iter().for_each(|(messages, last)| socket.exchange(messages, *last).expect("the kernel takes them all"));
                }));
            }
        }
    }
}

struct Raw(Socket);

impl Raw {
    fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_ROUTE)))?;
        force_send_buffer(&socket, 4 << 20)?;
        Ok(Self(socket))
    }

    /// Sends the messages and reads the answer to the one numbered `last`; an answer to another one is a failure.
    fn exchange(&self, messages: &[u8], last: u32) -> io::Result<()> {
        let sent = self.0.send(messages)?;
        let mut answer = [0; 256];
        let length = io::Read::read(&mut &self.0, &mut answer)?;
        let word = |at: usize| u32::from_ne_bytes(answer[at..at + 4].try_into().expect("four"));
        if sent == messages.len() && length >= 20 && word(8) == last && word(16) == 0 {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

/// A send buffer beyond what the system grants to everybody: it bounds a send.
fn force_send_buffer(socket: &Socket, octets: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the option takes one `int`, which outlives the call.
    #[expect(unsafe_code, reason = "SO_SNDBUFFORCE is in no safe interface")]
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, (&raw const octets).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Messages of at most so many octets a send, each with the number of its last one.
fn prebuilt(world: &World, family: Family, prefixes: &[IpNet], verb: Verb, octets: usize) -> Vec<(Vec<u8>, u32)> {
    let length = message(world, family, prefixes[0], verb, 0, 0).len();
    let chunks = prefixes.chunks(octets / length);
    let send = |(chunk, prefixes): (usize, &[IpNet])| {
        let first = (chunk * (octets / length)) as u32;
        let last = first + prefixes.len() as u32 - 1;
        let build =
            |(prefix, number): (&IpNet, u32)| message(world, family, *prefix, verb, number, if number == last { NLM_F_ACK } else { 0 });
        (prefixes.iter().zip(first..).flat_map(build).collect(), last)
    };
    chunks.enumerate().map(send).collect()
}

fn message(world: &World, family: Family, prefix: IpNet, verb: Verb, number: u32, flags: u16) -> Vec<u8> {
    let (kind, verb_flags) = match verb {
        Verb::Add => (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL),
        Verb::Replace => (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE),
        Verb::Delete => (RTM_DELROUTE, 0),
    };
    let mut bytes = vec![0; 4];
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | verb_flags | flags).to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend([0; 4]);
    let af = if family == Family::IPv4 { libc::AF_INET } else { libc::AF_INET6 } as u8;
    // Main table, protocol bird; a deletion is of any scope and type.
    let (scope, route_type) = if verb == Verb::Delete { (255, 0) } else { (0, 1) };
    bytes.extend([af, prefix.prefix_len(), 0, 0, 254, 12, scope, route_type, 0, 0, 0, 0]);
    let mut put = |kind: u16, value: &[u8]| {
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
    };
    let octets = |address| match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    put(libc::RTA_DST, &octets(prefix.addr()));
    put(libc::RTA_PRIORITY, &METRIC.to_ne_bytes());
    if verb != Verb::Delete {
        put(libc::RTA_OIF, &world.interface.to_ne_bytes());
        put(libc::RTA_GATEWAY, &octets(family.gateway(verb)));
    }
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}
