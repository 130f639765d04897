//! The operation `range` in an encoded command: what is not asked for takes no bytes.
//!
//! One command has one encoding, so a field that is there without saying anything is refused.

use super::{Decoder, EncodeError, Encoder, flags, tag};
use crate::codec::{DecodeError, Problem};
use crate::types::{RangeQuery, Revision, RevisionBounds, SortOrder, SortTarget};

const TARGETS: [SortTarget; 5] = [
    SortTarget::Key,
    SortTarget::Version,
    SortTarget::CreateRevision,
    SortTarget::ModRevision,
    SortTarget::Value,
];

const ORDERS: [SortOrder; 3] = [SortOrder::Unspecified, SortOrder::Ascend, SortOrder::Descend];

fn place<T: PartialEq>(of: &[T], item: &T) -> u8 {
    let found = of.iter().position(|own| own == item).expect("the table names every variant");
    u8::try_from(found).expect("a table of a few variants")
}

impl Encoder {
    pub(super) fn range_query(&mut self, query: &RangeQuery) -> Result<(), EncodeError> {
        let sort = (place(&TARGETS, &query.sort_target), place(&ORDERS, &query.sort_order));
        let given = [
            query.keys_only,
            query.count_only,
            !query.at.is_none(),
            sort != (0, 0),
            !query.mod_revisions.are_open(),
            !query.create_revisions.are_open(),
        ];
        self.0.u8(tag::OP_RANGE);
        self.0.u8(flags(&given));
        self.0.u64(u64::try_from(query.limit).unwrap_or(u64::MAX));
        if !query.at.is_none() {
            self.0.u64(query.at.0);
        }
        if sort != (0, 0) {
            self.0.u8(sort.0);
            self.0.u8(sort.1);
        }
        for bounds in [query.mod_revisions, query.create_revisions] {
            if !bounds.are_open() {
                self.0.u64(bounds.min.0);
                self.0.u64(bounds.max.0);
            }
        }
        self.range(&query.range)
    }
}

impl Decoder<'_> {
    pub(super) fn range_query(&mut self) -> Result<RangeQuery, DecodeError> {
        let [keys_only, count_only, has_at, has_sort, has_mod, has_create] =
            self.flags("range flags")?;
        let limit = self.reader.u64("limit")?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let at = if has_at { Revision(self.reader.u64("revision")?) } else { Revision::NONE };
        self.says("revision", has_at, at != Revision::NONE)?;
        let (mut sort_target, mut sort_order) = Default::default();
        if has_sort {
            sort_target = self.variant("sort target", &TARGETS)?;
            sort_order = self.variant("sort order", &ORDERS)?;
        }
        let is_sorted = (sort_target, sort_order) != Default::default();
        self.says("sort order", has_sort, is_sorted)?;
        let mod_revisions = self.bounds("bounds of mod_revision", has_mod)?;
        let create_revisions = self.bounds("bounds of create_revision", has_create)?;
        Ok(RangeQuery {
            range: self.range()?,
            at,
            limit,
            keys_only,
            count_only,
            sort_target,
            sort_order,
            mod_revisions,
            create_revisions,
        })
    }

    fn variant<T: Copy>(&mut self, field: &'static str, of: &[T]) -> Result<T, DecodeError> {
        let byte = self.reader.u8(field)?;
        of.get(usize::from(byte)).copied().ok_or_else(|| self.unknown(field, byte))
    }

    fn bounds(&mut self, field: &'static str, given: bool) -> Result<RevisionBounds, DecodeError> {
        let mut bounds = RevisionBounds::default();
        if given {
            bounds.min = Revision(self.reader.u64(field)?);
            bounds.max = Revision(self.reader.u64(field)?);
        }
        self.says(field, given, !bounds.are_open())?;
        Ok(bounds)
    }

    fn says(&self, field: &'static str, given: bool, says: bool) -> Result<(), DecodeError> {
        if given && !says {
            return Err(self.reader.error(field, Problem::OutOfBounds { value: 0 }));
        }
        Ok(())
    }
}
