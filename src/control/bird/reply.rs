//! A reply as BIRD writes it: every line has a code, which is only written where it changes.

use std::fmt::Display;

/// `OK`: the end of a reply that has said everything.
pub const OK: u16 = 0;

/// Lines of a reply, and the code of the last one.
#[derive(Debug, Default)]
pub struct Reply {
    text: String,
    code: Option<u16>,
}

impl Reply {
    /// A line that others follow.
    pub fn line(&mut self, code: u16, text: impl Display) {
        if self.code.replace(code) == Some(code) {
            self.push(' ', text);
        } else {
            self.text.push_str(&format!("{code:04}"));
            self.push('-', text);
        }
    }

    /// The last line.
    pub fn end(&mut self, code: u16, text: impl Display) {
        self.code = None;
        self.text.push_str(&format!("{code:04}"));
        self.push(' ', text);
    }

    /// What has been written since the last time.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// One line of a reply: nothing in it may end it.
    fn push(&mut self, mark: char, text: impl Display) {
        self.text.push(mark);
        let text = text.to_string();
        self.text.extend(text.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }));
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_written_where_it_changes() {
        let mut reply = Reply::default();
        reply.line(1000, "BIRD v1");
        reply.line(1011, "Router ID is 10.0.0.1");
        reply.line(1011, "Current server time is now");
        reply.end(13, "Daemon is up and running");
        reply.line(1011, "another reply");
        let expected =
            "1000-BIRD v1\n1011-Router ID is 10.0.0.1\n Current server time is now\n0013 Daemon is up and running\n1011-another reply\n";
        assert_eq!(reply.take(), expected);
        assert_eq!(reply.take(), "");
    }

    #[test]
    fn nothing_that_a_peer_says_ends_a_line() {
        let mut reply = Reply::default();
        reply.line(1006, "bye\r\n0000 \u{7}");
        assert_eq!(reply.take(), "1006-bye??0000 ?\n");
    }
}
