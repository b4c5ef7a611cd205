//! The BFD control packet (RFC 5880 section 4.1): 24 octets that say all there is to say.

use std::time::Duration;

/// Version in the upper three bits of the first octet.
const VERSION: u8 = 1;
/// Octets of a packet without authentication.
pub const LENGTH: usize = 24;
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const INDEPENDENT: u8 = 0x08;
const AUTHENTICATED: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// State of a session, in the numbers of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum State {
    /// Taken out of service by an operator: not a failure.
    AdminDown,
    /// Nothing is heard, or a failure was seen.
    #[default]
    Down,
    /// The other end is heard, and does not hear us yet.
    Init,
    /// Both hear each other.
    Up,
}

/// Why a session went down last (RFC 5880 section 4.1); numbers that are not known are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// 0.
    pub const NONE: Self = Self(0);
    /// 1: nothing came for the detection time.
    pub const TIME_EXPIRED: Self = Self(1);
    /// 3: the other end said Down.
    pub const NEIGHBOUR_DOWN: Self = Self(3);
    /// 7: taken out of service by an operator.
    pub const ADMINISTRATIVE: Self = Self(7);
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("none"),
            1 => f.write_str("nothing was heard for the detection time"),
            2 => f.write_str("the echo function failed"),
            3 => f.write_str("the neighbour said that it is down"),
            4 => f.write_str("the forwarding plane was reset"),
            5 => f.write_str("the path is down"),
            6 => f.write_str("a concatenated path is down"),
            7 => f.write_str("administratively down"),
            8 => f.write_str("a reverse concatenated path is down"),
            number => write!(f, "diagnostic {number}"),
        }
    }
}

impl serde::Serialize for Diagnostic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A control packet without authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The sender's diagnostic.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: an answer with F is asked for.
    pub poll: bool,
    /// F: this is the answer to P.
    pub finish: bool,
    /// C: the sender's BFD does not share the fate of its control plane.
    pub independent: bool,
    /// D: the sender is in demand mode.
    pub demand: bool,
    /// Packets that may be missed before the sender is taken for dead; never 0.
    pub multiplier: u8,
    /// The sender's discriminator; never 0.
    pub mine: u32,
    /// The receiver's discriminator, 0 where the sender does not know it.
    pub yours: u32,
    /// The least interval at which the sender wants to send.
    pub desired_transmit: Duration,
    /// The least interval at which it can receive; zero: nothing at all.
    pub required_receive: Duration,
    /// The same for echo packets; zero: none.
    pub required_echo: Duration,
}

/// Why a packet is dropped (B1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Dropped {
    /// Its version is not 1.
    #[error("its version is not 1")]
    Version,
    /// Its length is less than 24 (26 with authentication), or exceeds the payload.
    #[error("its length is impossible")]
    Length,
    /// Its multiplier is 0.
    #[error("its detect multiplier is 0")]
    Multiplier,
    /// M is set.
    #[error("its multipoint bit is set")]
    Multipoint,
    /// My discriminator is 0.
    #[error("its own discriminator is 0")]
    MyDiscriminator,
    /// Your discriminator is 0 in a state other than Down and AdminDown.
    #[error("it does not name our discriminator in a state that requires it")]
    YourDiscriminator,
    /// It is authenticated, and no session here is.
    #[error("it is authenticated, and this session is not")]
    Authentication,
    /// Its TTL shows that it came over a router (RFC 5881 section 5).
    #[error("its TTL is not 255: it came over a router, or is forged")]
    Ttl,
    /// There is no session for it.
    #[error("there is no session for it")]
    NoSession,
}

impl Packet {
    /// Reads a UDP payload, with the checks of RFC 5880 section 6.8.6 that need no session.
    ///
    /// # Errors
    /// Why it is dropped.
    pub fn decode(payload: &[u8]) -> Result<Self, Dropped> {
        let Some((fixed, _)) = payload.split_first_chunk::<LENGTH>() else { return Err(Dropped::Length) };
        let [first, second, multiplier, length, words @ ..] = fixed;
        let word = |at: usize| words.get(4 * at..4 * at + 4).and_then(|w| w.try_into().ok()).map_or(0, u32::from_be_bytes);
        let authenticated = second & AUTHENTICATED != 0;
        if first >> 5 != VERSION {
            return Err(Dropped::Version);
        }
        if usize::from(*length) < LENGTH + if authenticated { 2 } else { 0 } || usize::from(*length) > payload.len() {
            return Err(Dropped::Length);
        }
        if *multiplier == 0 {
            return Err(Dropped::Multiplier);
        }
        if second & MULTIPOINT != 0 {
            return Err(Dropped::Multipoint);
        }
        let state = match second >> 6 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        };
        let (mine, yours) = (word(0), word(1));
        if mine == 0 {
            return Err(Dropped::MyDiscriminator);
        }
        if yours == 0 && state > State::Down {
            return Err(Dropped::YourDiscriminator);
        }
        if authenticated {
            return Err(Dropped::Authentication);
        }
        let micros = |at| Duration::from_micros(word(at).into());
        Ok(Self {
            diagnostic: Diagnostic(first & 0x1f),
            state,
            poll: second & POLL != 0,
            finish: second & FINAL != 0,
            independent: second & INDEPENDENT != 0,
            demand: second & DEMAND != 0,
            multiplier: *multiplier,
            mine,
            yours,
            desired_transmit: micros(2),
            required_receive: micros(3),
            required_echo: micros(4),
        })
    }

    /// The octets of the packet.
    pub fn encode(&self) -> [u8; LENGTH] {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let flags = flag(self.poll, POLL) | flag(self.finish, FINAL) | flag(self.independent, INDEPENDENT) | flag(self.demand, DEMAND);
        let mut octets = [0; LENGTH];
        octets[0] = VERSION << 5 | self.diagnostic.0 & 0x1f;
        octets[1] = (self.state as u8) << 6 | flags;
        octets[2] = self.multiplier;
        octets[3] = LENGTH as u8;
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let words = [self.mine, self.yours, micros(self.desired_transmit), micros(self.required_receive), micros(self.required_echo)];
        for (place, word) in octets[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What FRR's bfdd sends when a session is Up, with every field another number.
    const SAMPLE: [u8; LENGTH] =
        [0x23, 0xe8, 3, 24, 0x1a, 0x2b, 0x3c, 0x4d, 0x55, 0x66, 0x77, 0x88, 0, 0x04, 0x93, 0xe0, 0, 0x01, 0x86, 0xa0, 0, 0, 0xc3, 0x50];

    #[test]
    fn a_packet_and_its_octets() {
        let packet = Packet {
            diagnostic: Diagnostic::NEIGHBOUR_DOWN,
            state: State::Up,
            poll: true,
            finish: false,
            independent: true,
            demand: false,
            multiplier: 3,
            mine: 0x1a2b_3c4d,
            yours: 0x5566_7788,
            desired_transmit: Duration::from_millis(300),
            required_receive: Duration::from_millis(100),
            required_echo: Duration::from_millis(50),
        };
        assert_eq!(Packet::decode(&SAMPLE), Ok(packet));
        assert_eq!(packet.encode(), SAMPLE);
        let longer = [&SAMPLE[..], &[9; 40]].concat();
        assert_eq!(Packet::decode(&longer), Ok(packet), "a payload may be longer than the packet says");
    }

    #[test]
    fn b1_what_is_dropped() {
        type Row = (&'static str, &'static [(usize, u8)], Dropped);
        let rows: [Row; 10] = [
            ("version 0", &[(0, 0x03)], Dropped::Version),
            ("version 2", &[(0, 0x43)], Dropped::Version),
            ("length 23", &[(3, 23)], Dropped::Length),
            ("length beyond the payload", &[(3, 25)], Dropped::Length),
            ("A with length 24", &[(1, 0xc4)], Dropped::Length),
            ("multiplier 0", &[(2, 0)], Dropped::Multiplier),
            ("M", &[(1, 0xc1)], Dropped::Multipoint),
            ("my discriminator 0", &[(4, 0), (5, 0), (6, 0), (7, 0)], Dropped::MyDiscriminator),
            ("your discriminator 0 in Up", &[(8, 0), (9, 0), (10, 0), (11, 0)], Dropped::YourDiscriminator),
            ("your discriminator 0 in Init", &[(1, 0x80), (8, 0), (9, 0), (10, 0), (11, 0)], Dropped::YourDiscriminator),
        ];
        for (row, changes, expected) in rows {
            let mut octets = SAMPLE;
            changes.iter().for_each(|(at, octet)| octets[*at] = *octet);
            assert_eq!(Packet::decode(&octets), Err(expected), "{row}");
        }
        let mut authenticated = [&SAMPLE[..], &[1, 4, 1, b'x']].concat();
        (authenticated[1], authenticated[3]) = (0xc4, 28);
        assert_eq!(Packet::decode(&authenticated), Err(Dropped::Authentication));
        let mut down = SAMPLE;
        down[1] = 0x40;
        down[8..12].fill(0);
        assert!(Packet::decode(&down).is_ok_and(|packet| packet.state == State::Down), "Down needs no discriminator of ours");
    }

    /// V1 for BFD: cut anywhere, any octet changed to anything: an answer, never a panic; what is accepted encodes and decodes alike.
    #[test]
    fn any_octets_at_all() {
        for length in 0..LENGTH {
            assert_eq!(Packet::decode(&SAMPLE[..length]), Err(Dropped::Length));
        }
        for at in 0..LENGTH {
            for octet in 0..=255 {
                let mut octets = SAMPLE;
                octets[at] = octet;
                if let Ok(packet) = Packet::decode(&octets) {
                    assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
                }
            }
        }
    }
}
