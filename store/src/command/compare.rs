//! The comparisons of a transaction in an encoded command.

use super::{Decoder, EncodeError, Encoder, tag};
use crate::codec::DecodeError;
use crate::types::{Compare, CompareResult, CompareTarget, LeaseId, Revision};

impl Encoder {
    pub(super) fn compares(&mut self, compares: &[Compare]) -> Result<(), EncodeError> {
        self.count(compares.len())?;
        compares.iter().try_for_each(|compare| self.compare(compare))
    }

    fn compare(&mut self, compare: &Compare) -> Result<(), EncodeError> {
        self.range(&compare.range)?;
        self.0.u8(match compare.result {
            CompareResult::Equal => tag::RESULT_EQUAL,
            CompareResult::NotEqual => tag::RESULT_NOT_EQUAL,
            CompareResult::Less => tag::RESULT_LESS,
            CompareResult::Greater => tag::RESULT_GREATER,
        });
        match &compare.target {
            CompareTarget::Version(version) => {
                self.0.u8(tag::TARGET_VERSION);
                self.0.u64(*version);
            }
            CompareTarget::CreateRevision(revision) => {
                self.0.u8(tag::TARGET_CREATE);
                self.0.u64(revision.0);
            }
            CompareTarget::ModRevision(revision) => {
                self.0.u8(tag::TARGET_MOD);
                self.0.u64(revision.0);
            }
            CompareTarget::Value(value) => {
                self.0.u8(tag::TARGET_VALUE);
                self.bytes(value)?;
            }
            CompareTarget::Lease(lease) => {
                self.0.u8(tag::TARGET_LEASE);
                self.0.i64(lease.0);
            }
        }
        Ok(())
    }
}

impl Decoder<'_> {
    pub(super) fn compares(&mut self) -> Result<Vec<Compare>, DecodeError> {
        let compares = self.reader.count("compares")?;
        (0..compares).map(|_| self.compare()).collect()
    }

    fn compare(&mut self) -> Result<Compare, DecodeError> {
        let range = self.range()?;
        let result = match self.reader.u8("compare result")? {
            tag::RESULT_EQUAL => CompareResult::Equal,
            tag::RESULT_NOT_EQUAL => CompareResult::NotEqual,
            tag::RESULT_LESS => CompareResult::Less,
            tag::RESULT_GREATER => CompareResult::Greater,
            other => return Err(self.unknown("compare result", other)),
        };
        let target = match self.reader.u8("compare target")? {
            tag::TARGET_VERSION => CompareTarget::Version(self.reader.u64("version")?),
            tag::TARGET_CREATE => {
                CompareTarget::CreateRevision(Revision(self.reader.u64("create revision")?))
            }
            tag::TARGET_MOD => {
                CompareTarget::ModRevision(Revision(self.reader.u64("mod revision")?))
            }
            tag::TARGET_VALUE => CompareTarget::Value(self.bytes("value")?),
            tag::TARGET_LEASE => CompareTarget::Lease(LeaseId(self.reader.i64("lease")?)),
            other => return Err(self.unknown("compare target", other)),
        };
        Ok(Compare { range, target, result })
    }
}
