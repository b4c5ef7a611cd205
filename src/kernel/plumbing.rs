//! Links, addresses and routes by single requests, each answered: for what makes workloads' interfaces, here and in other network namespaces.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use ipnet::IpNet;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::message::{
    AF_INET, AF_INET6, AF_UNSPEC, Attributes, IFA_ADDRESS, IFA_LOCAL, IFF_UP, IFLA_IFNAME, Messages, NLM_F_CREATE, NLM_F_DUMP_INTR,
    NLM_F_EXCL, NLM_F_REPLACE, NLMSG_DONE, NLMSG_ERROR, RTM_DELADDR, RTM_DELLINK, RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE, RTM_NEWADDR,
    RTM_NEWLINK, address, ask_acknowledgement, begin, decode_address, decode_route, encode_dump, encode_write, errno, finish, put,
    put_address, set_length, u32_at,
};
use super::netlink::Route;
use crate::fib::{KernelOp, KernelRoute};

const RTM_SETLINK: u16 = 19;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
/// `IFA_F_NODAD`: usable at once; nobody else can have the address of a workload on its own link.
const IFA_F_NODAD: u8 = 2;
const BUFFER: usize = 1 << 20;
const ATTEMPTS: usize = 5;

/// An interface, as far as plumbing goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Its hardware address.
    pub mac: Vec<u8>,
    /// `ifalias`.
    pub alias: String,
    /// `group`.
    pub group: u32,
    /// Index of the other end of a veth pair, in that end's namespace.
    pub peer: Option<u32>,
}

/// Interface, address and hardware address.
pub type Neighbour = (u32, IpAddr, Vec<u8>);

/// A veth pair to be made, one end of it in another namespace.
#[derive(Debug)]
pub struct Veth<'a> {
    /// Name of this end.
    pub name: &'a str,
    /// Hardware address of this end.
    pub mac: [u8; 6],
    /// `group` of this end.
    pub group: u32,
    /// MTU of both ends; none: the kernel's default.
    pub mtu: Option<u32>,
    /// Name of the other end.
    pub peer: &'a str,
    /// The other end's namespace.
    pub namespace: &'a File,
}

/// A socket for requests.
pub struct Plumbing {
    route: Route,
    sequence: u32,
    answers: Vec<u8>,
}

/// Does something in a network namespace, on a thread that is there and ends with it.
///
/// # Errors
/// The namespace cannot be entered (CAP_SYS_ADMIN), or what is done fails.
pub fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

impl Plumbing {
    /// In the network namespace of the calling thread, and for good.
    ///
    /// # Errors
    /// The system's.
    pub fn here() -> io::Result<Self> {
        Ok(Self { route: Route::open(0, BUFFER)?, sequence: 0, answers: vec![0; 64 * 1024] })
    }

    /// In that network namespace.
    ///
    /// # Errors
    /// See [`inside`].
    pub fn of(namespace: &File) -> io::Result<Self> {
        inside(namespace, Self::here)
    }

    /// All interfaces.
    ///
    /// # Errors
    /// The system's.
    pub fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        self.dump(RTM_GETLINK, AF_UNSPEC, interface)
    }

    /// All addresses, each with the index of its interface.
    ///
    /// # Errors
    /// The system's.
    pub fn addresses(&mut self) -> io::Result<Vec<(u32, IpNet)>> {
        self.dump(RTM_GETADDR, AF_UNSPEC, |body| decode_address(body).map(|(key, _)| key))
    }

    /// All routes of both families.
    ///
    /// # Errors
    /// The system's.
    pub fn routes(&mut self) -> io::Result<Vec<KernelRoute>> {
        let mut routes = self.dump(RTM_GETROUTE, AF_INET, decode_route)?;
        routes.extend(self.dump(RTM_GETROUTE, AF_INET6, decode_route)?);
        Ok(routes)
    }

    /// Makes a pair. Either both ends are there afterwards, or none.
    ///
    /// # Errors
    /// `EEXIST` where one of the names is taken.
    pub fn create(&mut self, veth: &Veth<'_>) -> io::Result<()> {
        let mut buffer = Vec::new();
        let start = begin(&mut buffer, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, self.next());
        buffer.extend_from_slice(&[0; 16]);
        put(&mut buffer, IFLA_IFNAME, &text(veth.name));
        put(&mut buffer, IFLA_ADDRESS, &veth.mac);
        put(&mut buffer, IFLA_GROUP, &veth.group.to_ne_bytes());
        veth.mtu.iter().for_each(|mtu| put(&mut buffer, IFLA_MTU, &mtu.to_ne_bytes()));
        nest(&mut buffer, IFLA_LINKINFO, |buffer| {
            put(buffer, IFLA_INFO_KIND, &text("veth"));
            nest(buffer, IFLA_INFO_DATA, |buffer| {
                nest(buffer, VETH_INFO_PEER, |buffer| {
                    buffer.extend_from_slice(&[0; 16]);
                    put(buffer, IFLA_IFNAME, &text(veth.peer));
                    veth.mtu.iter().for_each(|mtu| put(buffer, IFLA_MTU, &mtu.to_ne_bytes()));
                    put(buffer, IFLA_NET_NS_FD, &veth.namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
        self.request(buffer, start)
    }

    /// Removes an interface; of a pair both ends.
    ///
    /// # Errors
    /// The system's.
    pub fn delete(&mut self, index: u32) -> io::Result<()> {
        self.link(RTM_DELLINK, index, 0, |_| ())
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// The system's.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.link(RTM_NEWLINK, index, IFF_UP, |_| ())
    }

    /// Sets `ifalias`.
    ///
    /// # Errors
    /// The system's.
    pub fn set_alias(&mut self, index: u32, alias: &str) -> io::Result<()> {
        self.link(RTM_SETLINK, index, 0, |buffer| put(buffer, IFLA_IFALIAS, alias.as_bytes()))
    }

    /// Adds an address to an interface, or removes it.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&mut self, index: u32, address: IpNet, there: bool) -> io::Result<()> {
        let (kind, flags) = if there { (RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE) } else { (RTM_DELADDR, 0) };
        let mut buffer = Vec::new();
        let start = begin(&mut buffer, kind, flags, self.next());
        let (family, address_flags) = if address.addr().is_ipv4() { (AF_INET, 0) } else { (AF_INET6, IFA_F_NODAD) };
        buffer.extend_from_slice(&[family, address.prefix_len(), address_flags, 0]);
        buffer.extend_from_slice(&index.to_ne_bytes());
        put_address(&mut buffer, IFA_LOCAL, address.addr());
        put_address(&mut buffer, IFA_ADDRESS, address.addr());
        self.request(buffer, start)
    }

    /// The neighbours that somebody has put there for good: interface, address, hardware address.
    ///
    /// # Errors
    /// The system's.
    pub fn neighbours(&mut self) -> io::Result<Vec<Neighbour>> {
        self.dump(RTM_GETNEIGH, AF_INET, neighbour)
    }

    /// Puts a neighbour there for good.
    ///
    /// # Errors
    /// The system's.
    pub fn add_neighbour(&mut self, (index, address, mac): &Neighbour) -> io::Result<()> {
        let mut buffer = Vec::new();
        let start = begin(&mut buffer, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, self.next());
        buffer.extend_from_slice(&[if address.is_ipv4() { AF_INET } else { AF_INET6 }, 0, 0, 0]);
        buffer.extend_from_slice(&index.to_ne_bytes());
        buffer.extend_from_slice(&NUD_PERMANENT.to_ne_bytes());
        buffer.extend_from_slice(&[0, 0]);
        put_address(&mut buffer, NDA_DST, *address);
        put(&mut buffer, NDA_LLADDR, mac);
        self.request(buffer, start)
    }

    /// Writes a route.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&mut self, op: &KernelOp) -> io::Result<()> {
        let mut buffer = Vec::new();
        let sequence = self.next();
        let start = encode_write(&mut buffer, op, sequence);
        self.request(buffer, start)
    }

    fn link(&mut self, kind: u16, index: u32, flags: u32, more: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut buffer = Vec::new();
        let start = begin(&mut buffer, kind, 0, self.next());
        buffer.extend_from_slice(&[0; 4]);
        for word in [index, flags, flags] {
            buffer.extend_from_slice(&word.to_ne_bytes());
        }
        more(&mut buffer);
        self.request(buffer, start)
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn request(&mut self, mut buffer: Vec<u8>, start: usize) -> io::Result<()> {
        finish(&mut buffer, start);
        ask_acknowledgement(&mut buffer, start);
        self.route.send(&buffer)?;
        loop {
            let datagram = self.route.receive(&mut self.answers)?;
            let answer = Messages(datagram).find(|message| message.kind == NLMSG_ERROR && message.sequence == self.sequence);
            match answer.map(|message| errno(message.body)) {
                None => {}
                Some(Some(0)) => return Ok(()),
                Some(Some(errno)) => return Err(io::Error::from_raw_os_error(errno)),
                Some(None) => return Err(io::Error::from_raw_os_error(libc::EBADMSG)),
            }
        }
    }

    /// Everything of one kind; once more if it changed meanwhile.
    fn dump<T>(&mut self, kind: u16, family: u8, decode: fn(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
        for _ in 0..ATTEMPTS {
            if let Some(found) = self.dump_once(kind, family, decode)? {
                return Ok(found);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    fn dump_once<T>(&mut self, kind: u16, family: u8, decode: fn(&[u8]) -> Option<T>) -> io::Result<Option<Vec<T>>> {
        let sequence = self.next();
        self.route.send(&encode_dump(kind, family, None, sequence))?;
        let (mut found, mut whole) = (Vec::new(), true);
        loop {
            let datagram = self.route.receive(&mut self.answers)?;
            for message in Messages(datagram).filter(|message| message.sequence == sequence) {
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(whole.then_some(found)),
                    NLMSG_ERROR => return Err(io::Error::from_raw_os_error(errno(message.body).unwrap_or(libc::EBADMSG))),
                    _ => found.extend(decode(message.body)),
                }
            }
        }
    }
}

fn nest(buffer: &mut Vec<u8>, kind: u16, inner: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    put(buffer, kind, &[]);
    inner(buffer);
    set_length(buffer, start);
}

/// Text of a netlink attribute: with a zero at its end.
fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn neighbour(body: &[u8]) -> Option<Neighbour> {
    let (index, state) = (u32_at(body, 4)?, u16::from_ne_bytes([*body.get(8)?, *body.get(9)?]));
    let (mut to, mut mac) = (None, None);
    for (kind, value) in Attributes(body.get(12..)?) {
        match kind {
            NDA_DST => to = address(value),
            NDA_LLADDR => mac = Some(value.to_vec()),
            _ => {}
        }
    }
    (state == NUD_PERMANENT).then_some((index, to?, mac?))
}

fn words(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|octet| *octet == 0).next().unwrap_or_default()).into_owned()
}

fn interface(body: &[u8]) -> Option<Interface> {
    let mut found = Interface { index: u32_at(body, 4)?, up: u32_at(body, 8)? & IFF_UP != 0, ..Interface::default() };
    for (kind, value) in Attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => found.name = words(value),
            IFLA_ADDRESS => found.mac = value.to_vec(),
            IFLA_IFALIAS => found.alias = words(value),
            IFLA_GROUP => found.group = u32_at(value, 0)?,
            IFLA_LINK => found.peer = u32_at(value, 0),
            _ => {}
        }
    }
    Some(found)
}

/// What an errno means, for people who run `margay workload`.
pub fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => ": run as root (CAP_NET_ADMIN here and CAP_SYS_ADMIN for other namespaces)",
        Some(libc::EEXIST) => ": there is one already that is not ours",
        _ => "",
    }
}
