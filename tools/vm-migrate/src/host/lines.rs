// SPDX-License-Identifier: GPL-2.0

//! Lines over a UNIX socket, each with a limit of time: QEMU's monitor and the guest's serial port.

use std::{
    io::{
        self,
        Read,
        Write, //
    },
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{
        Duration,
        Instant, //
    },
};

/// A socket that carries lines.
pub(crate) struct Lines {
    stream: UnixStream,
    /// What has arrived and was not returned yet.
    buffer: Vec<u8>,
}

/// The longest line: QEMU's greeting and its answers have a few thousand bytes.
const LONGEST: usize = 1 << 20;

impl Lines {
    /// Talks over a stream.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            buffer: vec![],
        }
    }

    /// Connects to a socket that may not exist yet, as long as `alive` holds.
    ///
    /// # Errors
    ///
    /// There is none in time, or `alive` fails.
    pub(crate) fn connect(
        path: &Path,
        limit: Duration,
        mut alive: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let begin = Instant::now();
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Ok(Self::new(stream)),
                Err(e) if begin.elapsed() > limit => {
                    anyhow::bail!("no connection to {} in {limit:?}: {e}", path.display())
                }
                Err(_) => alive()?,
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a line.
    ///
    /// # Errors
    ///
    /// The other side is gone, or takes nothing for as long as `limit`.
    pub(crate) fn send(&mut self, line: &str, limit: Duration) -> io::Result<()> {
        self.stream.set_write_timeout(Some(limit))?;
        self.stream.write_all(format!("{line}\n").as_bytes())
    }

    /// The next line, without its end.
    ///
    /// # Errors
    ///
    /// `TimedOut` if there is none until `deadline`; what has arrived of one is kept. `UnexpectedEof`
    /// if the other side is gone.
    pub(crate) fn next(&mut self, deadline: Instant) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_string());
            }
            if self.buffer.len() > LONGEST {
                return Err(io::Error::other("a line without an end"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.buffer.extend_from_slice(bytes.get(..n).unwrap_or(&[])),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn lines_come_whole_however_they_arrive() -> io::Result<()> {
        let (ours, mut theirs) = UnixStream::pair()?;
        let mut lines = Lines::new(ours);
        theirs.write_all(b"one\r\ntwo\nth")?;
        assert_eq!(lines.next(soon())?, "one");
        assert_eq!(lines.next(soon())?, "two");
        let e = lines.next(Instant::now() + Duration::from_millis(20));
        assert_eq!(e.map_err(|e| e.kind()), Err(io::ErrorKind::TimedOut));
        theirs.write_all(b"ree\n")?;
        assert_eq!(lines.next(soon())?, "three");
        drop(theirs);
        let e = lines.next(soon());
        assert_eq!(e.map_err(|e| e.kind()), Err(io::ErrorKind::UnexpectedEof));
        Ok(())
    }

    #[test]
    fn waiting_for_a_socket_ends() {
        let none = Path::new("/nonexistent/socket");
        let limit = Duration::from_millis(30);
        assert!(Lines::connect(none, limit, || Ok(())).is_err());
        let dead = Lines::connect(none, Duration::from_secs(60), || anyhow::bail!("it died"));
        assert!(dead.is_err_and(|e| e.to_string() == "it died"));
    }
}
