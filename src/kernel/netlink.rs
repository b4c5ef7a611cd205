//! The sockets towards the kernel, and the writer: many messages a send, failures matched by sequence number.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use socket2::{SockFilter, SockRef};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Kernel;
use super::message::{Messages, NLMSG_ERROR, align, ask_acknowledgement, encode_write, errno};
use crate::fib::KernelOp;

/// Bytes a send: from 16 KB on the kernel's own work is nearly all there is, and 256 KB (four thousand routes) was best.
const CHUNK: usize = 256 * 1024;
/// No message of ours is longer: a multipath route of 64 hops over IPv6 gateways comes to about 2 KB.
const MESSAGE: usize = 4096;
/// Room for an error for each message of a chunk (each costs the socket about a kilobyte).
const ANSWERS: usize = 8 << 20;

/// A netlink socket of the network namespace that the creating thread is in.
pub(super) struct Route {
    socket: Socket,
    port: u32,
}

impl Route {
    /// Opens a socket that hears the multicast groups in `groups` (bit n − 1 is group n).
    pub(super) fn open(groups: u32, receive_buffer: usize) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        // Older kernels lack these; everything works without, with larger answers and dumps filtered here.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        force_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, receive_buffer)?;
        force_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, 2 * CHUNK)?;
        socket.bind(&SocketAddr::new(0, groups))?;
        let mut address = SocketAddr::new(0, 0);
        socket.get_address(&mut address)?;
        Ok(Self { socket, port: address.port_number() })
    }

    /// The number by which the kernel names this socket in what it causes.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Keeps the echo of what `port` writes away from this socket, inside the kernel.
    pub(super) fn ignore_echo_of(&self, port: u32) -> io::Result<()> {
        const PORT_OFFSET: u32 = 12;
        const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        SockRef::from(&self.socket).attach_filter(&[
            SockFilter::new(LOAD_WORD, 0, 0, PORT_OFFSET),
            // Classic BPF loads in network byte order.
            SockFilter::new(IF_EQUAL, 0, 1, port.to_be()),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ])
    }

    /// Lets the kernel filter dumps by table; false where it cannot.
    pub(super) fn filter_dumps(&self) -> bool {
        self.socket.set_netlink_get_strict_chk(true).is_ok()
    }

    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        self.socket.set_non_blocking(true)
    }

    /// Something to wait on until there is something to receive.
    pub(super) fn readiness(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let descriptor = self.socket.as_fd().try_clone_to_owned()?;
        // SAFETY: an owned descriptor stays open, and the same, until it is dropped.
        #[expect(unsafe_code, reason = "the safe constructor is deprecated")]
        let ready = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        Ok(ready?)
    }

    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0)?;
        if sent == bytes.len() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EMSGSIZE)) }
    }

    /// One datagram of the kernel into `buffer`, whose room must exceed the kernel's 32 KB.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        loop {
            let length = match self.socket.recv_from(&mut &mut buffer[..], 0) {
                // Only the kernel has port 0: other processes may send to us too.
                Ok((length, from)) if from.port_number() == 0 => length,
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            return Ok(buffer.get(..length).unwrap_or(&[]));
        }
    }
}

/// Sets a buffer beyond the system's limit, or up to it where we lack `CAP_NET_ADMIN`.
fn force_buffer(socket: &Socket, forced: libc::c_int, plain: libc::c_int, size: usize) -> io::Result<()> {
    let size = libc::c_int::try_from(size).unwrap_or(libc::c_int::MAX);
    let length = std::mem::size_of::<libc::c_int>() as libc::socklen_t;
    for option in [forced, plain] {
        // SAFETY: the descriptor is open, and the option takes one `int`, which outlives the call.
        #[expect(unsafe_code, reason = "SO_RCVBUFFORCE is in no safe interface")]
        let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const size).cast(), length) };
        if result == 0 {
            return Ok(());
        }
    }
    Err(io::Error::last_os_error())
}

/// The writer on the real kernel.
pub struct NetlinkKernel {
    route: Route,
    sequence: u32,
    buffer: Vec<u8>,
    answers: Vec<u8>,
}

impl NetlinkKernel {
    /// Opens the writer in the network namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        let route = Route::open(0, ANSWERS)?;
        Ok(Self { route, sequence: 0, buffer: Vec::with_capacity(CHUNK), answers: vec![0; 64 * 1024] })
    }

    /// The port whose echoes are ours.
    pub(super) fn port(&self) -> u32 {
        self.route.port()
    }

    /// Writes one chunk of `ops` in the given order, from `order[0]`; returns how many it took.
    fn write_chunk(&mut self, ops: &[KernelOp], order: &[usize], failed: &mut BTreeMap<usize, i32>) -> usize {
        self.buffer.clear();
        let first = self.sequence.wrapping_add(1);
        let (mut taken, mut last) = (0, 0);
        for op in order.iter().map_while(|index| ops.get(*index)) {
            if self.buffer.len() + MESSAGE > CHUNK {
                break;
            }
            self.buffer.resize(align(self.buffer.len()), 0);
            last = encode_write(&mut self.buffer, op, first.wrapping_add(taken as u32));
            taken += 1;
        }
        self.sequence = self.sequence.wrapping_add(taken as u32);
        ask_acknowledgement(&mut self.buffer, last);
        let chunk = order.get(..taken).unwrap_or(&[]);
        let result = self.route.send(&self.buffer).and_then(|()| self.read_answers(first, chunk, failed));
        if let Err(error) = result {
            // Which of them were carried out is not known: all are said to have failed, and tried again.
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            for index in chunk {
                failed.entry(*index).or_insert(errno);
            }
        }
        taken
    }

    /// Reads until the answer to the last message of the chunk; every answer before it is a failure.
    fn read_answers(&mut self, first: u32, chunk: &[usize], failed: &mut BTreeMap<usize, i32>) -> io::Result<()> {
        loop {
            let datagram = self.route.receive(&mut self.answers)?;
            for message in Messages(datagram).filter(|message| message.kind == NLMSG_ERROR) {
                let offset = message.sequence.wrapping_sub(first) as usize;
                let Some(index) = chunk.get(offset) else { continue };
                if let Some(errno) = errno(message.body).filter(|errno| *errno != 0) {
                    failed.insert(*index, errno);
                }
                if offset + 1 == chunk.len() {
                    return Ok(());
                }
            }
        }
    }
}

impl Kernel for NetlinkKernel {
    fn apply(&mut self, ops: &[KernelOp]) -> Vec<(usize, i32)> {
        let order = write_order(ops);
        let mut failed = BTreeMap::new();
        let mut rest = &order[..];
        while !rest.is_empty() {
            let taken = self.write_chunk(ops, rest, &mut failed);
            rest = rest.get(taken..).unwrap_or(&[]);
        }
        failed.into_iter().collect()
    }
}

/// The order of writing: deletions last (a prefix whose metric changes is never without a route), those of objects after those of routes
/// (which would go with them); else as given.
fn write_order(ops: &[KernelOp]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ops.len()).collect();
    order.sort_by_key(|index| match ops.get(*index) {
        Some(KernelOp::Delete(_)) => 1,
        Some(KernelOp::DeleteObject(_)) => 2,
        _ => 0,
    });
    order
}
