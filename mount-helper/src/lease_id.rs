//! How leases are written: in hexadecimal, as etcdctl does.

use revfs_api::keyspace::LeaseId;

/// Hexadecimal digits without a sign; a negative number is its two's complement.
pub(crate) fn shown(id: LeaseId) -> String {
    format!("{:x}", id.0)
}

pub(crate) fn parse(text: &str) -> Option<LeaseId> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    // from_str_radix would take a sign.
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u64::from_str_radix(digits, 16).ok().filter(|_| is_plain)?;
    Some(LeaseId(number.cast_signed()))
}

/// For clap.
pub(crate) fn argument(text: &str) -> Result<LeaseId, String> {
    let id = parse(text).filter(|id| *id != LeaseId::default());
    id.ok_or_else(|| "a lease is 1 to 16 hexadecimal digits, and not 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back() {
        for number in [1, 0x1f, i64::MAX, -1, i64::MIN] {
            assert_eq!(parse(&shown(LeaseId(number))), Some(LeaseId(number)));
        }
        assert_eq!(parse("0x1F"), Some(LeaseId(31)));
        for wrong in ["", "-1", "+1", "xyz", "10000000000000000"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert!(argument("0").is_err());
    }
}
