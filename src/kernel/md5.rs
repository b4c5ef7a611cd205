//! What the kernel has dropped for its TCP-MD5 signature (RFC 2385): it tells nobody when it does, and only counts.

use std::fmt;

/// Segments dropped in this network namespace since it began, whoever sent them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Md5Drops {
    /// Signed, where no key is configured here (`TCPMD5Unexpected`).
    pub unexpected: u64,
    /// Not signed, where a key is configured here (`TCPMD5NotFound`).
    pub missing: u64,
    /// Signed with another key (`TCPMD5Failure`).
    pub wrong: u64,
}

impl Md5Drops {
    /// As the kernel counts now; none where it does not count.
    pub fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/net/netstat").ok()?)
    }

    /// Of `/proc/net/netstat`: a line of names, then a line of numbers.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
        let (names, numbers) = (lines.next()?, lines.next()?);
        let count = |wanted: &str| {
            let mut pairs = names.split(' ').zip(numbers.split(' '));
            pairs.find(|(name, _)| *name == wanted).and_then(|(_, number)| number.parse().ok())
        };
        Some(Self { unexpected: count("TCPMD5Unexpected")?, missing: count("TCPMD5NotFound")?, wrong: count("TCPMD5Failure")? })
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Md5Drops {
    /// `3 segments with a key that is not configured here`, and so on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.unexpected, "with a key where none is configured here"),
            (self.missing, "without the key that is configured here"),
            (self.wrong, "with another key than the one configured here"),
        ];
        let told: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, words)| format!("{count} segments {words}")).collect();
        f.write_str(&told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text =
            "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure Other\nTcpExt: 7 1 0 12 9\nIpExt: InOctets\nIpExt: 3\n";
        let drops = Md5Drops::parse(text).unwrap();
        assert_eq!(drops, Md5Drops { unexpected: 0, missing: 1, wrong: 12 });
        assert_eq!(
            drops.to_string(),
            "1 segments without the key that is configured here, 12 segments with another key than the one configured here"
        );
        assert!(Md5Drops::default().is_empty() && !drops.is_empty());
        for nonsense in ["", "TcpExt: TCPMD5NotFound", "TcpExt: TCPMD5NotFound\nTcpExt: x\n"] {
            assert_eq!(Md5Drops::parse(nonsense), None, "{nonsense:?}");
        }
    }
}
