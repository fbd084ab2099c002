package csv

import (
	"testing"
	"time"
)

const tz = "timestamp with time zone"

func TestClock(t *testing.T) {
	at := func(s string) int64 {
		u, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return u.UnixMicro()
	}
	for _, c := range []struct {
		typ, zone, unit, value string
		want                   string // RFC 3339, or the reason of the refusal
	}{
		{tz, "", "", "2024-01-02T03:04:05.678901+01:00", "2024-01-02T02:04:05.678901Z"},
		{tz, "", "", "2024-01-02 03:04", "2024-01-02T03:04:00Z"},
		{tz, "", "", " 2024-01-02 ", "2024-01-02T00:00:00Z"},
		{tz, "", "", "2024-01-02 03:04:05Z", "2024-01-02T03:04:05Z"},
		{tz, "", "", "2024-01-02 03:04:05 UTC", "2024-01-02T03:04:05Z"},
		{tz, "", "", "2024-01-02 03:04:05.1-0330", "2024-01-02T06:34:05.1Z"},
		{tz, "", "", "2024-01-02 03:04:05+00:53:28", "2024-01-02T02:10:37Z"},
		{tz, "", "", "2024-01-02 24:00:00", "2024-01-03T00:00:00Z"},
		{tz, "", "", "2024-01-02 23:59:60", "2024-01-03T00:00:00Z"},
		{tz, "", "", "2024-01-02 03:04:05.678901000Z", "2024-01-02T03:04:05.678901Z"},
		{tz, "", "", "0001-01-01 00:00:00Z", "0001-01-01T00:00:00Z"},
		{tz, "", "", "9999-12-31 23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"},
		{tz, "", "", "1969-12-31 23:59:59.5Z", "1969-12-31T23:59:59.5Z"},
		{tz, "", "", "2024-01-02 03:04:05.6789012", "digits beyond microseconds"},
		{tz, "", "", "2024-01-02 24:00:01", "no such time of day"},
		{tz, "", "", "2024-01-02 23:60", "no such time of day"},
		{tz, "", "", "2024-02-30", "no such day"},
		{tz, "", "", "2023-02-29", "no such day"},
		{tz, "", "", "0000-01-01", "no such day"},
		{tz, "", "", "2024-01-02 03:04:05+16", "no such offset from UTC"},
		{tz, "", "", "02.01.2024", errNoTime.Error()},
		{tz, "", "", "20240102", errNoTime.Error()},
		{tz, "", "", "2024-01-02 3:04", errNoTime.Error()},
		{tz, "", "", "2024-01-02 03:04:05 CET", errNoTime.Error()},
		{tz, "", "", "2024-01-02 03:04:05 BC", errNoTime.Error()},
		{tz, "", "", "now", errNoTime.Error()},
		{tz, "", "", "", errNoTime.Error()},
		{tz, "Europe/Berlin", "", "2024-07-01 12:00", "2024-07-01T10:00:00Z"},
		{tz, "Europe/Berlin", "", "2024-07-01 12:00Z", "2024-07-01T12:00:00Z"},
		{tz, "Europe/Berlin", "", "2024-03-31 01:59:59", "2024-03-31T00:59:59Z"},
		{tz, "Europe/Berlin", "", "2024-03-31 02:30", "2024-03-31T01:30:00Z"}, // a gap
		{tz, "Europe/Berlin", "", "2024-03-31 03:00", "2024-03-31T01:00:00Z"},
		{tz, "Europe/Berlin", "", "2024-10-27 01:59", "2024-10-26T23:59:00Z"},
		{tz, "Europe/Berlin", "", "2024-10-27 02:30", "2024-10-27T01:30:00Z"}, // twice
		{tz, "Europe/Berlin", "", "2024-10-27 03:00", "2024-10-27T02:00:00Z"},
		{tz, "", "s", "1704067200", "2024-01-01T00:00:00Z"},
		{tz, "", "s", "-1.5", "1969-12-31T23:59:58.5Z"},
		{tz, "", "ms", "1704067200123", "2024-01-01T00:00:00.123Z"},
		{tz, "", "us", "1704067200123456", "2024-01-01T00:00:00.123456Z"},
		{tz, "", "ns", "1704067200123456000", "2024-01-01T00:00:00.123456Z"},
		{tz, "", "ns", "1704067200123456789", "digits beyond microseconds"},
		{tz, "", "ms", "1704067200123.4567", "digits beyond microseconds"},
		{tz, "", "s", "1704067200000", "out of range"},
		{tz, "", "s", "99999999999999999999", errNoNumber.Error()},
		{tz, "", "s", "2024-01-01", errNoNumber.Error()},
		{tz, "", "s", "1e9", errNoNumber.Error()},
		{"timestamp without time zone", "Europe/Berlin", "", "2024-07-01 12:00", "2024-07-01T12:00:00Z"},
		{"timestamp(3) without time zone", "", "", "2024-07-01T12:00:00Z", "2024-07-01T12:00:00Z"},
		{"timestamp without time zone", "", "", "2024-07-01 12:00+01", "has a time zone, and the column has none"},
		{"date", "", "", "2024-07-01", "2024-07-01T00:00:00Z"},
		{"date", "", "", "2024-07-01 00:00:00", "2024-07-01T00:00:00Z"},
		{"date", "", "", "2024-07-01 00:00:01", "has a time of day, and the column is a date"},
		{"date", "", "s", "1704067200", "2024-01-01T00:00:00Z"},
		{"date", "", "s", "1704067201", "has a time of day, and the column is a date"},
		{"smallint", "", "", "-32769", "out of range"},
		{"bigint", "", "", "99999999999999999999", "out of range"},
		{"integer", "", "", "1_000", "not an integer"},
		{"uuid", "", "", "018cc251-f400-7000-8000-000000000000", "2024-01-01T00:00:00Z"},
		{"uuid", "", "", "018cc251-f400-4000-8000-000000000000", "not a version 7 uuid"},
	} {
		clock, err := format(t, Dialect{Zone: c.zone, Unit: c.unit}).Clock(c.typ)
		if err != nil {
			t.Fatal(err)
		}
		got, err := clock.Parse([]byte(c.value))
		switch {
		case err != nil && err.Error() != c.want:
			t.Errorf("%s %q %s%s: %v, want %s", c.typ, c.value, c.zone, c.unit, err, c.want)
		case err == nil && len(c.want) > 5 && c.want[4] != '-':
			t.Errorf("%s %q %s%s: accepted, want: %s", c.typ, c.value, c.zone, c.unit, c.want)
		case err == nil && got.Internal != at(c.want):
			t.Errorf("%s %q %s%s: %s, want %s", c.typ, c.value, c.zone, c.unit,
				time.UnixMicro(got.Internal).UTC(), c.want)
		}
	}
}

// TestClockAppend: what is written is read as the same again.
func TestClockAppend(t *testing.T) {
	for _, typ := range []string{tz, "timestamp without time zone", "date", "bigint", "uuid"} {
		clock, err := format(t, Dialect{}).Clock(typ)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []int64{0, 1704067200000000, 253402300799000000, 1234567 * oneDay / 1000} {
			if typ == "date" {
				v -= v % oneDay
			}
			if typ == "uuid" {
				v -= v % 1000
			}
			s := clock.Append(nil, v)
			if got, err := clock.Parse(s); err != nil || got.Internal != v {
				t.Errorf("%s %d: %s is %d, %v", typ, v, s, got.Internal, err)
			}
		}
	}
	if _, err := format(t, Dialect{}).Clock("interval"); err == nil {
		t.Error("an interval is accepted as a time")
	}
	if _, err := format(t, Dialect{Unit: "s"}).Clock("bigint"); err == nil {
		t.Error("a time unit is accepted for an integer")
	}
}
