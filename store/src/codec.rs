//! Big-endian writing and checked reading of the fields that commands and rows are made of.
//!
//! A [`Reader`] never panics and never allocates by a length that it has not compared with the bytes
//! at hand: garbage is a [`DecodeError`] that names the field and where it stood.

/// Bytes that do not say what they should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {field} at byte {offset}: {problem}")]
pub struct DecodeError {
    pub field: &'static str,
    pub offset: usize,
    pub problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("{wanted} bytes wanted, {left} left")]
    Truncated { wanted: usize, left: usize },
    #[error("{left} bytes follow the last field")]
    Trailing { left: usize },
    #[error("unknown tag {tag}")]
    UnknownTag { tag: u32 },
    #[error("value {value} is out of bounds")]
    OutOfBounds { value: u64 },
    #[error("text is not UTF-8")]
    NotUtf8,
    #[error("checksum {found:#010x}, {expected:#010x} expected")]
    Checksum { found: u32, expected: u32 },
}

/// Appends fields to a buffer.
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// The bytes as they are; their length is known from elsewhere.
    pub(crate) fn raw(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// A length of four bytes and the bytes.
    ///
    /// # Errors
    /// The length itself, if it does not fit in four bytes.
    pub(crate) fn bytes(&mut self, value: &[u8]) -> Result<(), usize> {
        let length = u32::try_from(value.len()).map_err(|_| value.len())?;
        self.u32(length);
        self.raw(value);
        Ok(())
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes fields from the front of a slice.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    whole: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, whole: bytes.len() }
    }

    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn error(&self, field: &'static str, problem: Problem) -> DecodeError {
        DecodeError { field, offset: self.whole - self.rest.len(), problem }
    }

    pub(crate) fn raw(
        &mut self,
        field: &'static str,
        count: usize,
    ) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            let problem = Problem::Truncated { wanted: count, left: self.rest.len() };
            return Err(self.error(field, problem));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let taken = self.raw(field, N)?;
        Ok(taken.try_into().expect("raw returned N bytes"))
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(field)?[0])
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array(field)?))
    }

    /// A length of four bytes and so many bytes.
    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.u32(field)?;
        let length = usize::try_from(length)
            .map_err(|_| self.error(field, Problem::OutOfBounds { value: u64::from(length) }))?;
        self.raw(field, length)
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let bytes = self.bytes(field)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.error(field, Problem::NotUtf8)),
        }
    }

    /// A number of elements, each of which takes at least one of the bytes that are left.
    pub(crate) fn count(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        let count = self.u32(field)?;
        match usize::try_from(count) {
            Ok(elements) if elements <= self.rest.len() => Ok(elements),
            _ => Err(self.error(field, Problem::OutOfBounds { value: u64::from(count) })),
        }
    }

    pub(crate) fn end(self, field: &'static str) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.error(field, Problem::Trailing { left: self.rest.len() }))
    }
}
