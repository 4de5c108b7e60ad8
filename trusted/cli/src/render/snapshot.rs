//! The table of internal snapshots, in the layout of the emulated version.

use super::escape::Text;
use super::size::Rounding;
use crate::profile::{Profile, SnapshotLayout};
use instar_broker::sys;
use instar_wire::op::info::Snapshot;

/// A time of day at some place on Earth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// Year of the common era.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 60.
    pub second: u8,
}

impl LocalTime {
    /// The time in Greenwich, from seconds since 1970.
    pub fn utc(seconds: i64) -> LocalTime {
        let (days, rest) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
        // Eras of 400 years that begin on 1 March: the leap day is the last day of its year.
        let days = days + 719_468;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let (next, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
        LocalTime {
            year: era * 400 + year + next,
            month: month as u8,
            day: (day - (153 * ((month + 9) % 12) + 2) / 5 + 1) as u8,
            hour: (rest / 3600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
        }
    }

    fn text(self) -> String {
        let LocalTime { year, month, day, hour, minute, second } = self;
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

/// The time where the user is, from seconds since 1970.
pub fn local_time(seconds: i64) -> LocalTime {
    let [year, rest @ ..] = sys::local_time(seconds);
    let [month, day, hour, minute, second] = rest.map(|part| u8::try_from(part).unwrap_or(0));
    LocalTime { year, month, day, hour, minute, second }
}

/// How the table is to look.
pub struct Manner<'a> {
    /// Whose layout.
    pub profile: &'a Profile,
    /// Sizes.
    pub rounding: Rounding,
    /// Ids and tags.
    pub text: Text,
    /// Local time from seconds since 1970.
    pub local: &'a dyn Fn(i64) -> LocalTime,
}

/// The heading and a line for each snapshot. Columns are counted in bytes.
pub fn table(snapshots: &[Snapshot], manner: &Manner<'_>) -> Vec<u8> {
    let layout = manner.profile.snapshot_layout();
    let (size, clock) = if layout == SnapshotLayout::V9 { ("VM_SIZE", "VM_CLOCK") } else { ("VM SIZE", "VM CLOCK") };
    let mut out = Vec::new();
    row(&mut out, layout, b"ID", b"TAG", [size, "DATE", clock, "ICOUNT"]);
    for one in snapshots {
        let size = manner.rounding.size(one.vm_state_size);
        let date = (manner.local)(one.date_sec.into()).text();
        let icount = match one.icount {
            // A signed number in qemu's eyes.
            Some(count) => (count as i64).to_string(),
            None if layout == SnapshotLayout::V9 => "--".to_owned(),
            None => String::new(),
        };
        let cells = [&size[..], &date, &clock_text(one.vm_clock_nsec, layout), &icount];
        row(&mut out, layout, &manner.text.show(&one.id.0), &manner.text.show(&one.name.0), cells);
    }
    out
}

fn clock_text(nanoseconds: u64, layout: SnapshotLayout) -> String {
    let (seconds, milli) = (nanoseconds / 1_000_000_000, nanoseconds / 1_000_000 % 1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let width = if layout == SnapshotLayout::V9 { 4 } else { 2 };
    format!("{hours:0width$}:{minutes:02}:{seconds:02}.{milli:03}")
}

fn row(out: &mut Vec<u8>, layout: SnapshotLayout, id: &[u8], tag: &[u8], cells: [&str; 4]) {
    let [size, date, clock, icount] = cells;
    let (id_width, tag_width) = match layout {
        SnapshotLayout::V5_2 => (10, 17),
        SnapshotLayout::V6 => (10, 16),
        SnapshotLayout::V9 => (8, 16),
    };
    left(out, id, id_width);
    left(out, tag, tag_width);
    let rest = match layout {
        SnapshotLayout::V5_2 => format!(" {size:>7} {date:>19}{clock:>13}{icount:>11}\n"),
        SnapshotLayout::V6 => format!(" {size:>8} {date:>19}{clock:>13}{icount:>11}\n"),
        SnapshotLayout::V9 => format!(" {size:>8} {date:>19} {clock:>15} {icount:>10}\n"),
    };
    out.extend_from_slice(rest.as_bytes());
}

fn left(out: &mut Vec<u8>, text: &[u8], width: usize) {
    out.extend_from_slice(text);
    out.resize(out.len() + width.saturating_sub(text.len()), b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(version: &str, snapshots: &[Snapshot]) -> String {
        let profile = &Profile::parse(version).unwrap();
        let manner = Manner { profile, rounding: Rounding::AsQemu, text: Text::Raw, local: &LocalTime::utc };
        String::from_utf8(table(snapshots, &manner)).unwrap()
    }

    fn plain() -> Snapshot {
        Snapshot {
            id: "1".into(),
            name: "x".into(),
            vm_state_size: 0,
            date_sec: 1_700_000_000,
            date_nsec: 5,
            vm_clock_nsec: 0,
            icount: Some(0),
        }
    }

    /// Each row was printed by qemu-img of that version for a patched snapshot table.
    #[test]
    fn extreme_values_push_the_columns_as_the_oracle_does() {
        let large = Snapshot { vm_state_size: 999 * 1024 + 600, ..plain() };
        let long = Snapshot { vm_clock_nsec: 100 * 3600 * 1_000_000_000 + 1_999_999, ..plain() };
        let counted = Snapshot { icount: Some(12_345_678_901), ..plain() };
        let none = Snapshot { icount: None, ..plain() };
        let negative = Snapshot { icount: Some(1 << 63), ..plain() };
        let last = Snapshot { date_sec: u32::MAX, vm_clock_nsec: u64::MAX, vm_state_size: u64::MAX, ..plain() };
        let old = "\
ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT
1         x                 1e+03 KiB 2023-11-14 22:13:20 00:00:00.000          0
1         x                     0 B 2023-11-14 22:13:20100:00:00.001          0
1         x                     0 B 2023-11-14 22:13:20 00:00:00.00012345678901
1         x                     0 B 2023-11-14 22:13:20 00:00:00.000           \n\
1         x                     0 B 2023-11-14 22:13:20 00:00:00.000-9223372036854775808
1         x                  16 EiB 2106-02-07 06:28:155124095:34:33.709          0\n";
        let new = "\
ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT
1       x                1e+03 KiB 2023-11-14 22:13:20  0000:00:00.000          0
1       x                     0 B 2023-11-14 22:13:20  0100:00:00.001          0
1       x                     0 B 2023-11-14 22:13:20  0000:00:00.000 12345678901
1       x                     0 B 2023-11-14 22:13:20  0000:00:00.000         --
1       x                     0 B 2023-11-14 22:13:20  0000:00:00.000 -9223372036854775808
1       x                  16 EiB 2106-02-07 06:28:15 5124095:34:33.709          0\n";
        let all = [large, long, counted, none, negative, last];
        assert_eq!(lines("5.2", &all), old);
        assert_eq!(lines("7.2", &all), old.replacen("x                 1e", "x                1e", 1));
        assert_eq!(lines("11.1.3", &all), new);
    }

    #[test]
    fn days_are_counted_from_any_year() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_799, "2000-02-29 23:59:59"),
            (1_735_689_599, "2024-12-31 23:59:59"),
            (-1, "1969-12-31 23:59:59"),
            (4_294_967_295, "2106-02-07 06:28:15"),
        ] {
            assert_eq!(LocalTime::utc(seconds).text(), text);
        }
    }
}
