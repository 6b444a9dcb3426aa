// SPDX-License-Identifier: GPL-2.0

//! Reading untrusted bytes.
//!
//! Pure: depends on `core` and on the kernel's error types only, so that a parser built on it runs
//! on a host as well.

use kernel::{
    alloc::AllocError,
    error::{
        code::{
            EINVAL,
            ENOMEM, //
        },
        Error,
        Result, //
    },
    fmt, //
};

/// Why a table is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// There is no memory to hold what the table says.
    Memory,
    /// The table contradicts itself.
    Bad {
        /// Offset in the table of the record that does.
        offset: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => write!(f, "out of memory"),
            Self::Bad { offset, what } => write!(f, "at offset {offset}: {what}"),
        }
    }
}

impl From<TableError> for Error {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Memory => ENOMEM,
            TableError::Bad { .. } => EINVAL,
        }
    }
}

impl From<AllocError> for TableError {
    fn from(_: AllocError) -> Self {
        Self::Memory
    }
}

/// A position in a slice of bytes, from which little-endian values are taken.
///
/// Nothing is ever read past the end: what is not there is `EINVAL`, and then the position has not
/// moved.
///
/// # Examples
///
/// ```
/// use kernel::iommu::firmware::reader::Reader;
///
/// let mut reader = Reader::new(&[1, 2, 3, 4, 5]);
/// assert_eq!(reader.u8()?, 1);
/// assert_eq!(reader.u16()?, 0x0302);
/// assert!(reader.u32().is_err());
/// assert_eq!(reader.rest(), &[4, 5]);
/// # Ok::<(), kernel::error::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes that have not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Tells whether all has been read.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the next `len` bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are fewer.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(EINVAL)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// Takes the next `N` bytes as an array.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are fewer.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or(EINVAL)?;
        self.bytes = rest;
        Ok(*taken)
    }

    /// Passes over `len` bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are fewer.
    pub fn skip(&mut self, len: usize) -> Result {
        self.bytes(len).map(|_| ())
    }

    /// Takes the next `len` bytes as another reader, which cannot leave them.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are fewer.
    pub fn sub(&mut self, len: usize) -> Result<Reader<'a>> {
        self.bytes(len).map(Reader::new)
    }

    /// Takes a byte.
    ///
    /// # Errors
    ///
    /// `EINVAL` at the end.
    pub fn u8(&mut self) -> Result<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// Takes a 16-bit value.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not there whole.
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Takes a 32-bit value.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not there whole.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Takes a 64-bit value.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not there whole.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}

/// The form in which a table states the type and the length of a record at its start.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum RecordHeader {
    /// One byte of type, one byte of length.
    Byte,
    /// Two bytes of type, two bytes of length.
    Word,
    /// One byte of type, one byte that belongs to the record, two bytes of length.
    ByteThenWord,
}

impl RecordHeader {
    /// The bytes that type and length take.
    const fn len(self) -> usize {
        match self {
            Self::Byte => 2,
            Self::Word | Self::ByteThenWord => 4,
        }
    }
}

/// One record of a table.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Its type.
    pub kind: u16,
    /// All its bytes, those of type and length included.
    pub bytes: &'a [u8],
    header: RecordHeader,
}

impl<'a> Record<'a> {
    /// Reads what follows type and length.
    pub fn body(&self) -> Reader<'a> {
        // A record is not shorter than its header: `Records` has made sure.
        Reader::new(self.bytes.get(self.header.len()..).unwrap_or(&[]))
    }
}

/// The records of a table, one after the other.
///
/// A record that is shorter than its own header or leads past the end yields `EINVAL` once, and the
/// iteration is over: it can neither loop nor read beyond.
///
/// # Examples
///
/// ```
/// use kernel::iommu::firmware::reader::{RecordHeader, Records};
///
/// let bytes = [7, 0, 6, 0, 0xaa, 0xbb, 8, 0, 9, 0];
/// let mut records = Records::new(&bytes, RecordHeader::Word);
/// let first = records.next().ok_or(EINVAL)??;
/// assert_eq!(first.kind, 7);
/// assert_eq!(first.body().u16()?, 0xbbaa);
/// assert!(records.next().ok_or(EINVAL)?.is_err());
/// assert!(records.next().is_none());
/// # Ok::<(), Error>(())
/// ```
pub struct Records<'a> {
    reader: Reader<'a>,
    header: RecordHeader,
}

impl<'a> Records<'a> {
    /// Starts at the first of `bytes`.
    pub const fn new(bytes: &'a [u8], header: RecordHeader) -> Self {
        Self {
            reader: Reader::new(bytes),
            header,
        }
    }

    fn take(&mut self) -> Result<Record<'a>> {
        // A copy: the record's bytes begin where its header does.
        let mut ahead = self.reader;
        let (kind, len) = match self.header {
            RecordHeader::Byte => (u16::from(ahead.u8()?), usize::from(ahead.u8()?)),
            RecordHeader::Word => (ahead.u16()?, usize::from(ahead.u16()?)),
            RecordHeader::ByteThenWord => {
                let kind = ahead.u8()?;
                ahead.skip(1)?;
                (u16::from(kind), usize::from(ahead.u16()?))
            }
        };
        if len < self.header.len() {
            return Err(EINVAL);
        }
        Ok(Record {
            kind,
            bytes: self.reader.bytes(len)?,
            header: self.header,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let record = self.take();
        if record.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(record)
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(rust_iommu_reader)]
mod tests {
    use super::*;

    #[test]
    fn values_are_little_endian() -> Result {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let mut reader = Reader::new(&bytes);

        assert_eq!(reader.u8()?, 0x01);
        assert_eq!(reader.u16()?, 0x0302);
        assert_eq!(reader.u32()?, 0x0706_0504);
        assert_eq!(reader.u64()?, 0x0f0e_0d0c_0b0a_0908);
        assert!(reader.is_empty());
        Ok(())
    }

    #[test]
    fn the_end_is_not_crossed() -> Result {
        let mut reader = Reader::new(&[1, 2, 3]);

        assert_eq!(reader.u32().err(), Some(EINVAL));
        assert_eq!(reader.u64().err(), Some(EINVAL));
        assert_eq!(reader.bytes(usize::MAX).err(), Some(EINVAL));
        assert_eq!(reader.sub(4).err(), Some(EINVAL));
        // A failure moves nothing.
        assert_eq!(reader.rest(), &[1, 2, 3]);

        let mut sub = reader.sub(2)?;
        assert_eq!(sub.u16()?, 0x0201);
        assert_eq!(sub.u8().err(), Some(EINVAL));
        assert_eq!(reader.u8()?, 3);
        Ok(())
    }

    fn kinds(bytes: &[u8], header: RecordHeader) -> (usize, bool) {
        let mut whole = 0;
        // At most one record a byte, if the iteration ends at all.
        for record in Records::new(bytes, header).take(bytes.len() + 1) {
            if record.is_err() {
                return (whole, false);
            }
            whole += 1;
        }
        (whole, true)
    }

    #[test]
    fn records_end_where_they_say() {
        assert_eq!(kinds(&[], RecordHeader::Word), (0, true));
        assert_eq!(kinds(&[1, 2, 3, 3, 0], RecordHeader::Byte), (2, true));
        assert_eq!(
            kinds(&[1, 0, 4, 0, 2, 0, 5, 0, 9], RecordHeader::Word),
            (2, true)
        );
        assert_eq!(kinds(&[1, 9, 4, 0], RecordHeader::ByteThenWord), (1, true));
    }

    #[test]
    fn records_that_lie_end_it() {
        // No length at all: would never end.
        assert_eq!(kinds(&[1, 0, 0, 0, 2, 0], RecordHeader::Byte), (0, false));
        assert_eq!(kinds(&[1, 0, 0, 0], RecordHeader::Word), (0, false));
        // Shorter than its own header.
        assert_eq!(kinds(&[1, 1], RecordHeader::Byte), (0, false));
        assert_eq!(kinds(&[1, 0, 3, 0], RecordHeader::ByteThenWord), (0, false));
        // Longer than what is there, after one that is right.
        assert_eq!(kinds(&[1, 2, 2, 9], RecordHeader::Byte), (1, false));
        // Cut off in the header.
        assert_eq!(kinds(&[1, 0, 4], RecordHeader::Word), (0, false));
    }
}
