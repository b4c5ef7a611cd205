//! What has no safe binding: raw options and structs, the TTL of a datagram, a thread's precedence. With `kernel/netlink.rs` the
//! only file with `unsafe`.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

/// Precedence of the BFD thread.
const BFD_NICE: libc::c_int = -15;

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

/// Sets an option.
///
/// # Errors
/// The system's.
pub fn option<T>(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(mem::size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` is a live T and `length` its size; the kernel only reads it.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option.
///
/// # Errors
/// The system's.
pub fn option_of<T: Copy + Default>(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut length = libc::socklen_t::try_from(mem::size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` is a live T of plain integers, `length` its size; the kernel writes at most that much.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, std::ptr::from_mut(&mut value).cast(), &raw mut length) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// The TTL or hop limit of the SYN that opened an accepted connection, where its listener had `TCP_SAVE_SYN`; none if the kernel
/// has not kept it (SYN cookies). It is told once.
pub fn ttl_of_syn(socket: &impl AsRawFd) -> Option<u8> {
    let mut headers = [0_u8; 512];
    let mut length = libc::socklen_t::try_from(headers.len()).ok()?;
    let (fd, buffer) = (socket.as_raw_fd(), headers.as_mut_ptr().cast());
    // SAFETY: `buffer` points to `length` live bytes; the kernel writes at most that much.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_SAVED_SYN, buffer, &raw mut length) };
    let syn = headers.get(..length as usize).filter(|_| result == 0)?;
    match syn.first()? >> 4 {
        4 => syn.get(8).copied(),
        6 => syn.get(7).copied(),
        _ => None,
    }
}

/// An address as the structs of keys hold it, without the port.
pub fn sockaddr_storage(address: SocketAddr) -> libc::sockaddr_storage {
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
