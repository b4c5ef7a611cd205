//! TCP-MD5 (RFC 2385) on a test's socket.
//!
//! The only `unsafe` of the tests: no safe binding has this option.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use socket2::SockAddr;

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C)]
struct Signature {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: i32,
    key: [u8; 80],
}

/// Signs what is exchanged with `remote` on `socket`, which is not connected yet.
///
/// # Errors
/// A kernel without TCP-MD5; a key longer than 80 octets.
pub fn sign(socket: &impl AsRawFd, remote: SocketAddr, key: &[u8]) -> io::Result<()> {
    let mut octets = [0; 80];
    octets.get_mut(..key.len()).ok_or_else(|| io::Error::other("a key has at most 80 octets"))?.copy_from_slice(key);
    let remote = SockAddr::from(remote);
    // SAFETY: all-zero octets are a valid `sockaddr_storage`.
    let mut address: libc::sockaddr_storage = unsafe { mem::zeroed() };
    // SAFETY: `remote` holds `remote.len()` octets, which are no more than a `sockaddr_storage`.
    unsafe { std::ptr::copy_nonoverlapping(remote.as_ptr().cast::<u8>(), (&raw mut address).cast::<u8>(), remote.len() as usize) };
    let signature = Signature { address, flags: 0, prefix_length: 0, key_length: key.len() as u16, interface: 0, key: octets };
    let length = mem::size_of::<Signature>() as libc::socklen_t;
    // SAFETY: the option reads `length` octets of `signature`, which outlives the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_MD5SIG, (&raw const signature).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
