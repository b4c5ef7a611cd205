//! TCP as far as it matters here: connections by number, each direction in order. Nothing is lost, and there is always room.

/// Number of a connection; not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpId(pub u32);

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The node.
    pub node: u32,
    /// The peer there whose connection it is.
    pub peer: u32,
    /// A process holds it.
    pub open: bool,
    /// Nothing that this end sends arrives before.
    pub latest: u64,
}

/// A connection. End 0 opened it.
#[derive(Debug)]
pub struct Tcp {
    /// Its ends.
    pub ends: [End; 2],
}

/// All connections that there have been.
#[derive(Debug, Default)]
pub struct Tcps {
    all: Vec<Tcp>,
}

impl Tcps {
    /// A connection that is being opened.
    pub fn open(&mut self, opener: End, other: End) -> TcpId {
        self.all.push(Tcp { ends: [opener, other] });
        TcpId(self.all.len() as u32 - 1)
    }

    /// One connection.
    pub fn get(&self, id: TcpId) -> &Tcp {
        &self.all[id.0 as usize]
    }

    /// One end.
    pub fn end_mut(&mut self, id: TcpId, end: usize) -> &mut End {
        &mut self.all[id.0 as usize].ends[end]
    }

    /// Every end that a node holds.
    pub fn held_by(&self, node: u32) -> Vec<(TcpId, usize)> {
        let ends = (0..).zip(&self.all).flat_map(|(id, tcp)| (0..).zip(&tcp.ends).map(move |(end, one)| (TcpId(id), end, one)));
        ends.filter(|(_, _, end)| end.open && end.node == node).map(|(id, number, _)| (id, number)).collect()
    }
}
