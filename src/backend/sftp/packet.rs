//! The form of SFTP's packets (draft-ietf-secsh-filexfer-02, sections 3 to 7).

use std::io;

pub(super) const INIT: u8 = 1;
pub(super) const VERSION: u8 = 2;
pub(super) const OPEN: u8 = 3;
pub(super) const CLOSE: u8 = 4;
pub(super) const READ: u8 = 5;
pub(super) const WRITE: u8 = 6;
pub(super) const LSTAT: u8 = 7;
pub(super) const FSETSTAT: u8 = 10;
pub(super) const OPENDIR: u8 = 11;
pub(super) const READDIR: u8 = 12;
pub(super) const REMOVE: u8 = 13;
pub(super) const MKDIR: u8 = 14;
pub(super) const RMDIR: u8 = 15;
pub(super) const STAT: u8 = 17;
pub(super) const READLINK: u8 = 19;
pub(super) const SYMLINK: u8 = 20;
pub(super) const EXTENDED: u8 = 200;

const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;

/// Flags of OPEN (section 6.3).
pub(super) const FOR_READING: u32 = 0x01;
/// Writing to a file that must not be there yet: `WRITE | CREAT | EXCL`.
pub(super) const FOR_NEW: u32 = 0x02 | 0x08 | 0x20;

/// Status codes (section 7).
pub(super) const OK: u32 = 0;
pub(super) const EOF: u32 = 1;
pub(super) const NO_SUCH_FILE: u32 = 2;
pub(super) const PERMISSION_DENIED: u32 = 3;

/// Which attributes a packet has (section 5).
const HAS_SIZE: u32 = 0x1;
const HAS_OWNER: u32 = 0x2;
const HAS_MODE: u32 = 0x4;
const HAS_TIMES: u32 = 0x8;
const HAS_MORE: u32 = 0x8000_0000;

/// What a path is, by the type bits of its mode (POSIX, `sys/stat.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    Special,
}

/// What the server tells of a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Type and permission bits.
    pub(super) mode: u32,
}

impl Attributes {
    pub(super) fn kind(&self) -> Kind {
        match self.mode & 0o170_000 {
            0o100_000 => Kind::File,
            0o040_000 => Kind::Directory,
            0o120_000 => Kind::Symlink,
            _ => Kind::Special,
        }
    }
}

/// What a server answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Status { code: u32, message: String },
    Handle(Vec<u8>),
    Data(Vec<u8>),
    Names(Vec<(Vec<u8>, Attributes)>),
    Attributes(Attributes),
    Other,
}

/// A request in the making: room for its length, its kind and, but for INIT, its number.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(kind: u8, number: u32) -> Self {
        let mut bytes = vec![0, 0, 0, 0, kind];
        bytes.extend(number.to_be_bytes());
        Self(bytes)
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        // No caller comes near 4 GiB: paths are checked, data goes in blocks.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.extend(length.to_be_bytes());
        self.0.extend(bytes);
        self
    }

    pub(super) fn no_attributes(self) -> Self {
        self.u32(0)
    }

    pub(super) fn owner(self, uid: u32, gid: u32) -> Self {
        self.u32(HAS_OWNER).u32(uid).u32(gid)
    }

    pub(super) fn mode(self, mode: u32) -> Self {
        self.u32(HAS_MODE).u32(mode)
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

/// Reads a packet without its length: its number and what it says.
pub(super) fn parse(packet: &[u8]) -> io::Result<(u32, Reply)> {
    let mut reader = Reader(packet);
    let kind = reader.u8()?;
    let number = reader.u32()?;
    let reply = match kind {
        STATUS => Reply::Status {
            code: reader.u32()?,
            // Some servers leave the text out.
            message: reader
                .bytes()
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .unwrap_or_default(),
        },
        HANDLE => Reply::Handle(reader.bytes()?.to_vec()),
        DATA => Reply::Data(reader.bytes()?.to_vec()),
        ATTRS => Reply::Attributes(reader.attributes()?),
        NAME => {
            let count = reader.u32()?;
            let mut names = Vec::new();
            for _ in 0..count {
                let name = reader.bytes()?.to_vec();
                let _for_people = reader.bytes()?;
                names.push((name, reader.attributes()?));
            }
            Reply::Names(names)
        }
        _ => Reply::Other,
    };
    Ok((number, reply))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an SFTP packet that is too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> io::Result<u32> {
        let mut number = [0; 4];
        number.copy_from_slice(self.take(4)?);
        Ok(u32::from_be_bytes(number))
    }

    fn u64(&mut self) -> io::Result<u64> {
        let mut number = [0; 8];
        number.copy_from_slice(self.take(8)?);
        Ok(u64::from_be_bytes(number))
    }

    fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn attributes(&mut self) -> io::Result<Attributes> {
        let has = self.u32()?;
        let mut attributes = Attributes::default();
        if has & HAS_SIZE != 0 {
            attributes.size = self.u64()?;
        }
        if has & HAS_OWNER != 0 {
            (attributes.uid, attributes.gid) = (self.u32()?, self.u32()?);
        }
        if has & HAS_MODE != 0 {
            attributes.mode = self.u32()?;
        }
        if has & HAS_TIMES != 0 {
            self.take(8)?;
        }
        if has & HAS_MORE != 0 {
            for _ in 0..self.u32()? {
                self.bytes()?;
                self.bytes()?;
            }
        }
        Ok(attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_length_kind_and_number() {
        let packet = Writer::new(LSTAT, 7).bytes(b"/a").finish();
        assert_eq!(packet, [0, 0, 0, 11, 7, 0, 0, 0, 7, 0, 0, 0, 2, b'/', b'a']);
    }

    #[test]
    fn replies_are_read() {
        let status = Writer::new(STATUS, 3).u32(2).bytes(b"no").bytes(b"en").finish();
        let expected = Reply::Status {
            code: NO_SUCH_FILE,
            message: "no".to_owned(),
        };
        assert_eq!(parse(&status[4..]).expect("a packet"), (3, expected));

        let attributes = Writer::new(ATTRS, 4)
            .u32(HAS_SIZE | HAS_OWNER | HAS_MODE | HAS_TIMES | HAS_MORE)
            .u64(5)
            .u32(1000)
            .u32(1001)
            .u32(0o100_640)
            .u64(0)
            .u32(1)
            .bytes(b"k")
            .bytes(b"v")
            .finish();
        let expected = Attributes {
            size: 5,
            uid: 1000,
            gid: 1001,
            mode: 0o100_640,
        };
        assert_eq!(expected.kind(), Kind::File);
        assert_eq!(
            parse(&attributes[4..]).expect("a packet"),
            (4, Reply::Attributes(expected))
        );

        let names = Writer::new(NAME, 5)
            .u32(1)
            .bytes(&[0xff, b'x'])
            .bytes(b"long")
            .mode(0o040_755)
            .finish();
        let (_, Reply::Names(names)) = parse(&names[4..]).expect("a packet") else {
            panic!("names");
        };
        assert_eq!(names[0].0, [0xff, b'x']);
        assert_eq!(names[0].1.kind(), Kind::Directory);
    }

    #[test]
    fn short_packets_are_errors() {
        let whole = Writer::new(NAME, 5).u32(u32::MAX).bytes(b"a").finish();
        for end in 4..whole.len() {
            assert!(parse(&whole[4..end]).is_err(), "{end}");
        }
    }
}
