//! One TCP connection to margay.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::daemon::{Daemon, PeerPlan};
use super::{message, signature};

/// The longest wait for an answer of margay; on a loaded machine, not in the normal case.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message with a good header: its type and body.
    Message(u8, Vec<u8>),
    /// The other end closed in order.
    Fin,
    /// The connection was reset.
    Reset,
    /// Nothing came in time.
    Silence,
}

/// What our OPEN says.
#[derive(Clone, Debug)]
pub struct Open {
    /// The version.
    pub version: u8,
    /// The two-octet AS field.
    pub my_as: u16,
    /// Hold time in seconds.
    pub hold: u16,
    /// Identifier.
    pub identifier: Ipv4Addr,
    /// Capabilities: code and value.
    pub capabilities: Vec<(u8, Vec<u8>)>,
}

impl Open {
    /// A good OPEN of an IPv4 speaker in this AS: multiprotocol, route refresh and four-octet AS; no graceful restart.
    pub fn new(asn: u32, identifier: Ipv4Addr) -> Self {
        let capabilities = vec![(1, vec![0, 1, 0, 1]), (2, vec![]), (65, asn.to_be_bytes().to_vec())];
        Self { version: 4, my_as: u16::try_from(asn).unwrap_or(23456), hold: 240, identifier, capabilities }
    }

    /// The same for the IPv6 family.
    #[must_use]
    pub fn ipv6(mut self) -> Self {
        self.capabilities[0] = (1, vec![0, 2, 0, 1]);
        self
    }

    /// One more capability.
    #[must_use]
    pub fn with(mut self, code: u8, value: &[u8]) -> Self {
        self.capabilities.push((code, value.to_vec()));
        self
    }

    /// The capabilities as one optional parameter.
    pub fn parameters(&self) -> Vec<u8> {
        let all: Vec<u8> = self.capabilities.iter().flat_map(|(code, value)| [&[*code, value.len() as u8], &value[..]].concat()).collect();
        if all.is_empty() { Vec::new() } else { [&[2, all.len() as u8], &all[..]].concat() }
    }

    /// The message, with these octets as optional parameters.
    pub fn with_parameters(&self, parameters: &[u8]) -> Vec<u8> {
        message::message(message::OPEN, &[&self.fixed()[..], &[parameters.len() as u8], parameters].concat())
    }

    /// What stands before the length of the optional parameters.
    pub fn fixed(&self) -> Vec<u8> {
        [&[self.version][..], &self.my_as.to_be_bytes(), &self.hold.to_be_bytes(), &self.identifier.octets()].concat()
    }

    /// The message.
    pub fn message(&self) -> Vec<u8> {
        self.with_parameters(&self.parameters())
    }
}

/// A TCP connection between margay and one of its configured peers, seen from the peer.
#[derive(Debug)]
pub struct Neighbour {
    stream: TcpStream,
    pending: Vec<u8>,
    /// The longest message that margay may send us: more than 4096 octets where both sides have extended messages.
    pub limit: usize,
    /// Who we are.
    pub plan: PeerPlan,
}

impl Neighbour {
    /// Connects as this peer.
    ///
    /// # Errors
    /// The system's.
    pub fn connect(daemon: &Daemon, plan: &PeerPlan) -> Result<Self> {
        Self::connect_from(daemon, plan, plan.key.as_deref(), PATIENCE)
    }

    /// Connects as this peer, with another key than margay's configuration has for it.
    ///
    /// # Errors
    /// The system's; where the keys differ there is no answer at all.
    pub fn connect_from(daemon: &Daemon, plan: &PeerPlan, key: Option<&str>, within: Duration) -> Result<Self> {
        Self::connect_to(daemon.address(plan.address.is_ipv4()), plan, key, within)
    }

    /// Connects as this peer to any of margay's addresses.
    ///
    /// # Errors
    /// The system's.
    pub fn connect_to(remote: SocketAddr, plan: &PeerPlan, key: Option<&str>, within: Duration) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(remote), Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::new(plan.address, 0).into()).with_context(|| format!("bind {}", plan.address))?;
        if let Some(key) = key {
            signature::sign(&socket, remote, key.as_bytes()).context("TCP-MD5")?;
        }
        socket.connect_timeout(&remote.into(), within).with_context(|| format!("connect to {remote} from {}", plan.address))?;
        Ok(Self::over(socket.into(), plan))
    }

    /// A connection that margay opened.
    pub fn over(stream: TcpStream, plan: &PeerPlan) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self { stream, pending: Vec::new(), limit: 4096, plan: plan.clone() }
    }

    /// Connects and exchanges OPENs and KEEPALIVEs.
    ///
    /// # Errors
    /// Whatever came instead.
    pub fn establish(daemon: &Daemon, plan: &PeerPlan) -> Result<Self> {
        Self::establish_with(daemon, plan, &plan.open())
    }

    /// The same with another OPEN.
    ///
    /// # Errors
    /// Whatever came instead.
    pub fn establish_with(daemon: &Daemon, plan: &PeerPlan, open: &Open) -> Result<Self> {
        let mut neighbour = Self::connect(daemon, plan)?;
        neighbour.send(&[open.message(), message::keepalive()].concat())?;
        neighbour.confirm()?;
        Ok(neighbour)
    }

    /// Reads margay's OPEN and KEEPALIVE; the OPEN's body.
    ///
    /// # Errors
    /// Whatever came instead.
    pub fn confirm(&mut self) -> Result<Vec<u8>> {
        let open = match self.hear(PATIENCE)? {
            Heard::Message(message::OPEN, body) => body,
            other => bail!("{}: no OPEN but {other:?}", self.plan.address),
        };
        match self.hear(PATIENCE)? {
            Heard::Message(message::KEEPALIVE, _) => Ok(open),
            other => bail!("{}: no KEEPALIVE but {other:?}", self.plan.address),
        }
    }

    /// Writes octets.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, octets: &[u8]) -> Result<()> {
        self.stream.write_all(octets).with_context(|| format!("write to margay as {}", self.plan.address))
    }

    /// The next message, whatever it is.
    ///
    /// # Errors
    /// Octets that are no BGP message.
    pub fn hear(&mut self, within: Duration) -> Result<Heard> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(message) = self.whole()? {
                return Ok(message);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Heard::Silence);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 65536];
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    return if self.pending.is_empty() { Ok(Heard::Fin) } else { bail!("closed amid a message: {:02x?}", self.pending) };
                }
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => return Ok(Heard::Reset),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn whole(&mut self) -> Result<Option<Heard>> {
        if self.pending.len() < 19 {
            return Ok(None);
        }
        ensure!(self.pending[..16] == [0xff; 16], "margay sent a bad marker: {:02x?}", &self.pending[..19]);
        let length = usize::from(u16::from_be_bytes([self.pending[16], self.pending[17]]));
        let kind = self.pending[18];
        ensure!((19..=self.limit).contains(&length), "margay sent a message of {length} octets");
        if self.pending.len() < length {
            return Ok(None);
        }
        let rest = self.pending.split_off(length);
        let message = std::mem::replace(&mut self.pending, rest);
        Ok(Some(Heard::Message(kind, message[19..].to_vec())))
    }

    /// Reads on to a NOTIFICATION of this code, which must be followed by an orderly close (H5); its data.
    ///
    /// # Errors
    /// Whatever came instead.
    pub fn expect_notification(&mut self, code: u8, subcode: u8) -> Result<Vec<u8>> {
        let data = loop {
            match self.hear(PATIENCE)? {
                Heard::Message(message::NOTIFICATION, body) => {
                    ensure!(body.starts_with(&[code, subcode]), "wanted NOTIFICATION {code}/{subcode}, got {body:?}");
                    break body[2..].to_vec();
                }
                Heard::Message(..) => {}
                other => bail!("wanted NOTIFICATION {code}/{subcode}, got {other:?}"),
            }
        };
        match self.hear(PATIENCE)? {
            Heard::Fin => Ok(data),
            other => bail!("after NOTIFICATION {code}/{subcode}: {other:?}"),
        }
    }

    /// Reads on to the end of the connection; whatever NOTIFICATION came before it.
    ///
    /// # Errors
    /// There is no end.
    pub fn expect_end(&mut self) -> Result<Option<Vec<u8>>> {
        let mut notification = None;
        loop {
            match self.hear(PATIENCE)? {
                Heard::Message(message::NOTIFICATION, body) => notification = Some(body),
                Heard::Message(..) => {}
                Heard::Fin | Heard::Reset => return Ok(notification),
                Heard::Silence => bail!("{}: margay keeps the connection open", self.plan.address),
            }
        }
    }

    /// Reads one octet, which [`Neighbour::hear`] has before the next ones.
    ///
    /// # Errors
    /// There is none.
    pub fn take_octet(&mut self) -> Result<()> {
        self.take_octets(1)
    }

    /// Reads so many octets and no more, likewise.
    ///
    /// # Errors
    /// There are not as many.
    pub fn take_octets(&mut self, count: usize) -> Result<()> {
        let start = self.pending.len();
        self.pending.resize(start + count, 0);
        self.stream.set_read_timeout(Some(PATIENCE))?;
        Ok(self.stream.read_exact(&mut self.pending[start..])?)
    }

    /// Lets the end of this value be a RST.
    ///
    /// # Errors
    /// The system's.
    pub fn reset_on_close(&self) -> Result<()> {
        Ok(socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?)
    }

    /// Says that nothing more will be written.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(&mut self) -> Result<()> {
        Ok(self.stream.shutdown(std::net::Shutdown::Write)?)
    }

    /// Our end's address.
    pub fn address(&self) -> IpAddr {
        self.plan.address
    }
}
