//! Sizes in words: a number and a unit.

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// How a size is rounded for the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Three significant digits, as qemu-img prints them.
    AsQemu,
    /// One decimal.
    OneDecimal,
}

impl Rounding {
    /// `1.5 GiB`.
    pub fn size(self, bytes: u64) -> String {
        match self {
            Rounding::AsQemu => three_digits(bytes),
            Rounding::OneDecimal => one_decimal(bytes),
        }
    }

    /// `1.5 GiB (1610612736 bytes)`.
    pub fn size_and_bytes(self, bytes: u64) -> String {
        format!("{} ({bytes} bytes)", self.size(bytes))
    }
}

/// The unit changes at 1000, not at 1024, and the number has the shape of C's `%.3g`: so 999.9 KiB is `1e+03 KiB`.
fn three_digits(bytes: u64) -> String {
    // qemu-img computes with doubles; beyond 2^53 that shows.
    let double = bytes as f64;
    let unit = log2_floor((double / (1000.0 / 1024.0)).max(1.0)) / 10;
    let (value, div) = (double as u128, 1u128 << (10 * unit));
    let decimals = match () {
        () if bytes == 0 || value >= 100 * div => 0,
        () if value >= 10 * div => 1,
        () if value >= div => 2,
        () => 3,
    };
    let scale = 10u128.pow(decimals);
    let digits = half_even(value * scale, div);
    let name = UNITS[unit as usize];
    if digits == 1000 && decimals == 0 {
        return format!("1e+03 {name}");
    }
    let (whole, part) = (digits / scale, digits % scale);
    if part == 0 {
        return format!("{whole} {name}");
    }
    let part = format!("{part:0width$}", width = decimals as usize);
    format!("{whole}.{} {name}", part.trim_end_matches('0'))
}

fn one_decimal(bytes: u64) -> String {
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    // 1023.96 KiB is 1.0 MiB, not 1024.0 KiB.
    while unit + 1 < UNITS.len() && tenths >= 10 * 1024 {
        unit += 1;
        tenths = half_even(u128::from(bytes) * 10, 1 << (10 * unit));
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

/// `value / div`, rounded to the nearest whole number, and to the even one of two.
fn half_even(value: u128, div: u128) -> u128 {
    let (whole, rest) = (value / div, value % div);
    let up = rest * 2 > div || (rest * 2 == div && whole % 2 == 1);
    whole + u128::from(up)
}

/// Of a number that is at least one; read from the exponent, because a logarithm rounds.
fn log2_floor(number: f64) -> u32 {
    ((number.to_bits() >> 52) as u32 & 0x7ff).saturating_sub(1023)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes and what qemu-img 11.1.3 says of them.
    const SEEN: &str = include_str!("testdata/sizes.tsv");

    #[test]
    fn sizes_read_as_the_oracle_prints_them() {
        for line in SEEN.lines() {
            let (bytes, said) = line.split_once('\t').unwrap();
            assert_eq!(Rounding::AsQemu.size_and_bytes(bytes.parse().unwrap()), said);
        }
    }

    #[test]
    fn one_decimal_tells_the_truth() {
        for (bytes, said) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_524, "1023.9 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_114_624, "1.1 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Rounding::OneDecimal.size(bytes), said);
        }
    }
}
