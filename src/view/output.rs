//! The two streams: results to one, messages to the other.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// One stream, and whether it takes colours.
pub struct Sink {
    /// Where it leads.
    pub writer: Box<dyn Write + Send>,
    /// Whether colours are kept; they are stripped otherwise.
    pub color: bool,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("color", &self.color)
            .finish_non_exhaustive()
    }
}

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Where results go.
    Results,
    /// Where everything else goes.
    Messages,
}

/// Where everything is written to. Clones write to the same streams.
///
/// A reader that goes away, as `head` does, ends the output and not the work: an apply is carried on.
#[derive(Debug, Clone)]
pub struct Output(Arc<Streams>);

#[derive(Debug)]
struct Streams {
    results: Stream,
    messages: Stream,
    quiet: bool,
    live: bool,
}

#[derive(Debug)]
struct Stream {
    color: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sink: Option<Sink>,
    trouble: Option<io::Error>,
}

impl Output {
    /// Writes to these. `quiet` drops notes; `live` says that messages go to a terminal that can redraw lines.
    #[must_use]
    pub fn new(results: Sink, messages: Sink, quiet: bool, live: bool) -> Self {
        let stream = |sink: Sink| Stream {
            color: sink.color,
            state: Mutex::new(State {
                sink: Some(sink),
                trouble: None,
            }),
        };
        Self(Arc::new(Streams {
            results: stream(results),
            messages: stream(messages),
            quiet,
            live,
        }))
    }

    /// Writes what was asked for, and a line's end where it has none.
    pub fn result(&self, text: &str) {
        self.0.results.line(text);
    }

    /// Writes what went wrong, and a line's end where it has none.
    pub fn message(&self, text: &str) {
        self.0.messages.line(text);
    }

    /// Writes bytes of a sandbox's to where results go, or to where messages go: as they are, for they are no text of
    /// ours.
    ///
    /// # Errors
    /// Whatever writing says; a reader that has gone away included.
    pub fn bytes(&self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        let stream = match channel {
            Channel::Results => &self.0.results,
            Channel::Messages => &self.0.messages,
        };
        match &mut stream.lock().sink {
            Some(sink) => sink.writer.write_all(bytes).and_then(|()| sink.writer.flush()),
            None => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    /// Writes a remark that nobody has to read; nothing when quiet.
    pub fn note(&self, text: &str) {
        if !self.0.quiet {
            self.0.messages.line(text);
        }
    }

    /// Whether only results and problems are wanted.
    #[must_use]
    pub fn quiet(&self) -> bool {
        self.0.quiet
    }

    /// Whether messages go to a terminal whose lines can be drawn again.
    #[must_use]
    pub fn live(&self) -> bool {
        self.0.live
    }

    /// Whether messages are in colour.
    #[must_use]
    pub fn colored_messages(&self) -> bool {
        self.0.messages.color
    }

    /// What kept results from being written, other than that nobody reads them any more.
    #[must_use]
    pub fn trouble(&self) -> Option<io::Error> {
        self.0.results.lock().trouble.take()
    }
}

impl Stream {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, text: &str) {
        let mut state = self.lock();
        let Some(sink) = &mut state.sink else { return };
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let written = if self.color {
            write!(sink.writer, "{text}{end}")
        } else {
            write!(sink.writer, "{}{end}", anstream::adapter::strip_str(text))
        };
        if let Err(error) = written.and_then(|()| sink.writer.flush()) {
            state.sink = None;
            if error.kind() != ErrorKind::BrokenPipe {
                state.trouble = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn output(writer: impl Write + Send + 'static) -> Output {
        let sink = |writer| Sink { writer, color: false };
        Output::new(sink(Box::new(writer)), sink(Box::new(io::sink())), false, false)
    }

    #[test]
    fn a_reader_that_leaves_is_no_trouble_and_a_full_disk_is() {
        let gone = output(Failing(ErrorKind::BrokenPipe));
        gone.result("a");
        gone.result("b");
        assert!(gone.trouble().is_none());
        let full = output(Failing(ErrorKind::StorageFull));
        full.result("a");
        assert_eq!(full.trouble().map(|error| error.kind()), Some(ErrorKind::StorageFull));
    }
}
