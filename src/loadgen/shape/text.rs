//! Appending numbers and instants to a byte buffer without allocating.

use crate::loadgen::rng::Rng;

pub fn push_str(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

pub fn push_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The lowest `digits` hexadecimal digits of `value`.
pub fn push_hex(out: &mut Vec<u8>, value: u64, digits: u32) {
    for place in (0..digits).rev() {
        let nibble = (value >> (place * 4)) as u8 & 0xF;
        out.push(if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + nibble - 10
        });
    }
}

/// The lowest `digits` decimal digits of `value`, zeros in front.
pub fn push_padded(out: &mut Vec<u8>, value: u64, digits: u32) {
    let mut divisor = 10_u64.pow(digits.saturating_sub(1));
    while divisor != 0 {
        out.push(b'0' + (value / divisor % 10) as u8);
        divisor /= 10;
    }
}

pub fn push_ip(out: &mut Vec<u8>, value: u64) {
    for (place, shift) in [0, 8, 16, 24].into_iter().enumerate() {
        if place != 0 {
            out.push(b'.');
        }
        push_u64(out, 1 + ((value >> shift) & 0xFF) % 254);
    }
}

/// `8-4-4-4-12` hexadecimal digits.
pub fn push_guid(out: &mut Vec<u8>, rng: &mut Rng) {
    let (high, low) = (rng.draw(), rng.draw());
    push_hex(out, high, 8);
    out.push(b'-');
    push_hex(out, high >> 32, 4);
    out.push(b'-');
    push_hex(out, high >> 48, 4);
    out.push(b'-');
    push_hex(out, low, 4);
    out.push(b'-');
    push_hex(out, low >> 16, 12);
}

/// The text of the last second asked for: neighbouring lines share it.
#[derive(Clone, Debug, Default)]
pub struct StampCache {
    second: Option<i64>,
    /// `2025-03-20T00:00:00`
    text: String,
}

impl StampCache {
    fn of_second(&mut self, second: i64) -> &str {
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = jiff::Timestamp::from_second(second)
                .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
                .to_string();
            self.text.truncate(19);
        }
        &self.text
    }

    /// RFC 3339 in UTC with `digits` (1 to 9) digits of the second.
    pub fn push_rfc3339(&mut self, out: &mut Vec<u8>, time_ns: i64, digits: u32) {
        let second = time_ns.div_euclid(1_000_000_000);
        let fraction = time_ns.rem_euclid(1_000_000_000) as u64;
        push_str(out, self.of_second(second));
        out.push(b'.');
        push_padded(out, fraction / 10_u64.pow(9 - digits.min(9)), digits.min(9));
        out.push(b'Z');
    }

    /// `20/Mar/2025:00:00:00 +0000`
    pub fn push_clf(&mut self, out: &mut Vec<u8>, time_ns: i64) {
        let text = self.of_second(time_ns.div_euclid(1_000_000_000));
        let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        let month = match part(5, 7) {
            "01" => "Jan",
            "02" => "Feb",
            "03" => "Mar",
            "04" => "Apr",
            "05" => "May",
            "06" => "Jun",
            "07" => "Jul",
            "08" => "Aug",
            "09" => "Sep",
            "10" => "Oct",
            "11" => "Nov",
            _ => "Dec",
        };
        for piece in [
            part(8, 10),
            "/",
            month,
            "/",
            part(0, 4),
            ":",
            part(11, 19),
            " +0000",
        ] {
            push_str(out, piece);
        }
    }
}
