//! Zstandard (RFC 8878). A file is one frame or several, one after the other, among them some that hold no data: programs that
//! compress by several threads, or for readers that look for single files, write such.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Whether a file that begins so is compressed by it.
pub(super) fn is_meant(magic: &[u8]) -> bool {
    matches!(
        magic,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]
    )
}

/// The data of all frames.
pub(super) struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    /// Whether a frame has begun whose end has not come.
    within: bool,
}

impl<R: BufRead> Frames<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            decoder: FrameDecoder::new(),
            within: false,
        }
    }

    /// Begins the next frame. Says whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut self.source.by_ref().take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.within {
                if buffer.is_empty() || !self.begin()? {
                    return Ok(0);
                }
                self.within = true;
            }
            // What is decoded can be had only when enough more has come that refers back to it, or the frame's end.
            while self.decoder.can_collect() < buffer.len() && !self.decoder.is_finished() {
                let more = BlockDecodingStrategy::UptoBytes(buffer.len() - self.decoder.can_collect());
                self.decoder
                    .decode_blocks(&mut self.source, more)
                    .map_err(io::Error::other)?;
            }
            match self.decoder.read(buffer)? {
                0 if !buffer.is_empty() => self.within = false,
                length => return Ok(length),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn frame(data: &[u8]) -> Vec<u8> {
        compress_to_vec(data, CompressionLevel::Fastest)
    }

    fn all(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut data = Vec::new();
        Frames::new(bytes).read_to_end(&mut data).map(|_| data)
    }

    #[test]
    fn frames_follow_each_other_and_some_hold_nothing() {
        let long: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        let bytes = [&skipped, &frame(b"one "), &frame(b""), &skipped, &frame(&long)]
            .map(Vec::as_slice)
            .concat();
        assert!(is_meant(&bytes) && is_meant(&frame(b"")) && !is_meant(b"PK\x03\x04"));
        assert_eq!(all(&bytes).expect("reads"), [b"one ".as_slice(), &long].concat());
        assert_eq!(all(b"").expect("reads"), b"");
    }

    #[test]
    fn what_is_cut_off_or_no_frame_is_an_error() {
        let whole = frame(&[7; 5000]);
        assert!(all(&whole[..whole.len() - 3]).is_err());
        assert!(all(&[&whole[..], b"something else"].concat()).is_err());
        assert!(all(&[0x50, 0x2a, 0x4d, 0x18, 9, 0, 0, 0, 1]).is_err());
    }
}
