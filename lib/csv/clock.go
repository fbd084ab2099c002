package csv

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"time"
)

// Clock reads the values of one time column as TimescaleDB's internal integers:
// microseconds since 1970 in UTC, or the integer itself.
//
// The list of forms is closed. A wrong guess would put a row into the wrong task, so
// what the server might read otherwise is refused: 2024-01-02T03:04:05.678901+01:00
// and its shorter forms, a day alone, integers in integer columns, and numbers
// since 1970 if the dialect gives their unit.
type Clock struct {
	kind kind
	most int64 // the largest value of an integer type
	zone *time.Location
	unit string

	// The day of the last value: most of the time it is that of the next one, too.
	date     [10]byte
	dateTime int64
}

type kind byte

const (
	instant kind = iota // timestamptz
	wall                // timestamp
	day                 // date
	integer
	uuid7
)

// Time is a value that a Clock has read.
type Time struct {
	Internal int64
	// AsIs is set if the text means the same to a server whose TimeZone is UTC.
	AsIs bool
}

// Infinity and MinusInfinity are the internal values of infinity and -infinity.
const (
	Infinity      = math.MaxInt64
	MinusInfinity = math.MinInt64
)

// units are the units of a number since 1970: how many decimals are left until
// microseconds. Nanoseconds have three too many.
var units = map[string]int{"s": 6, "ms": 3, "us": 0, "ns": -3}

const (
	second = int64(1_000_000) // in microseconds
	oneDay = 86400 * second

	firstYear, lastYear = 1, 9999
)

var (
	firstTime = days(firstYear, 1, 1) * oneDay
	lastTime  = days(lastYear+1, 1, 1)*oneDay - 1
)

// Clock reads columns of a type, as format_type() spells it.
func (f *Format) Clock(typ string) (*Clock, error) {
	c := &Clock{unit: f.unit}
	switch withoutModifier(typ) {
	case "timestamp with time zone":
		c.kind, c.zone = instant, f.zone
	case "timestamp without time zone":
		c.kind = wall
	case "date":
		c.kind = day
	case "smallint":
		c.kind, c.most = integer, math.MaxInt16
	case "integer":
		c.kind, c.most = integer, math.MaxInt32
	case "bigint":
		c.kind, c.most = integer, math.MaxInt64
	case "uuid":
		c.kind = uuid7
	default:
		return nil, fmt.Errorf("type %s: bf reads no times of it from CSV", typ)
	}
	if c.unit != "" && (c.kind == integer || c.kind == uuid7) {
		return nil, fmt.Errorf("a time unit is for columns of type timestamptz, timestamp or date, this one is %s", typ)
	}
	return c, nil
}

// modifier is the (3) of "timestamp(3) with time zone".
var modifier = regexp.MustCompile(`\([^)]*\)`)

// withoutModifier takes it out of a type.
func withoutModifier(typ string) string { return modifier.ReplaceAllString(typ, "") }

var (
	errNoTime    = errors.New("not a time of the form 2024-01-02 03:04:05.678901+00")
	errNoDay     = errors.New("no such day")
	errNoHour    = errors.New("no such time of day")
	errOffset    = errors.New("no such offset from UTC")
	errTooFine   = errors.New("digits beyond microseconds")
	errZoned     = errors.New("has a time zone, and the column has none")
	errWithin    = errors.New("has a time of day, and the column is a date")
	errNoInteger = errors.New("not an integer")
	errNoNumber  = errors.New("not a number since 1970")
	errRange     = errors.New("out of range")
	errNoUUID    = errors.New("not a version 7 uuid")
)

// Parse reads a value. Blanks around it do not count, as for the server's casts.
func (c *Clock) Parse(v []byte) (Time, error) {
	v = trim(v)
	switch {
	case c.kind == integer:
		n, err := parseInteger(v)
		if err == nil && (n > c.most || n < -c.most-1) {
			err = errRange
		}
		return Time{n, true}, err
	case c.kind == uuid7:
		t, err := parseUUID(v)
		return Time{t, true}, err
	case c.unit != "":
		t, err := parseNumber(v, units[c.unit])
		if err == nil && c.kind == day && t%oneDay != 0 {
			err = errWithin
		}
		return Time{Internal: t}, err
	case string(v) == "infinity":
		return Time{Infinity, true}, nil
	case string(v) == "-infinity":
		return Time{MinusInfinity, true}, nil
	}
	return c.parseTime(v)
}

func (c *Clock) parseTime(v []byte) (Time, error) {
	date, rest, err := c.parseDate(v)
	if err != nil || len(rest) == 0 && c.kind == day {
		return Time{date, true}, err
	}
	ofDay, offset, zoned := int64(0), int64(0), false
	if len(rest) > 0 {
		if ofDay, rest, err = parseTimeOfDay(rest); err == nil {
			offset, zoned, err = parseOffset(rest)
		}
	}
	t := date + ofDay
	switch {
	case err != nil:
		return Time{}, err
	case c.kind != instant && zoned && (offset != 0 || c.kind == day):
		return Time{}, errZoned
	case c.kind == day && ofDay != 0:
		return Time{}, errWithin
	case c.kind == instant && zoned:
		t -= offset * second
	case c.kind == instant && c.zone != nil:
		t, err = inZone(t, c.zone)
		return Time{t, false}, err
	}
	return Time{t, true}, nil
}

// parseDate reads YYYY-MM-DD and returns what follows, and remembers the day.
func (c *Clock) parseDate(v []byte) (t int64, rest []byte, err error) {
	if len(v) >= len(c.date) && c.date[0] != 0 && [10]byte(v) == c.date {
		return c.dateTime, v[len(c.date):], nil
	}
	if t, rest, err = parseDate(v); err == nil {
		c.date, c.dateTime = [10]byte(v), t
	}
	return t, rest, err
}

// parseDate reads YYYY-MM-DD and returns what follows.
func parseDate(v []byte) (t int64, rest []byte, err error) {
	if len(v) < 10 || v[4] != '-' || v[7] != '-' {
		return 0, nil, errNoTime
	}
	y1, ok1 := two(v[0:])
	y2, ok2 := two(v[2:])
	m, ok3 := two(v[5:])
	d, ok4 := two(v[8:])
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return 0, nil, errNoTime
	}
	y := y1*100 + y2
	if y < firstYear || m < 1 || m > 12 || d < 1 || d > monthDays(y, m) {
		return 0, nil, errNoDay
	}
	return days(y, m, d) * oneDay, v[10:], nil
}

// parseTimeOfDay reads " HH:MM[:SS[.fraction]]" and returns what follows. As for the
// server, 24:00:00 is the end of the day and second 60 the next minute.
func parseTimeOfDay(v []byte) (t int64, rest []byte, err error) {
	if len(v) < 6 || v[0] != ' ' && v[0] != 'T' || v[3] != ':' {
		return 0, nil, errNoTime
	}
	h, ok1 := two(v[1:])
	m, ok2 := two(v[4:])
	s, micros := int64(0), int64(0)
	rest = v[6:]
	if len(rest) >= 3 && rest[0] == ':' {
		ok := false
		if s, ok = two(rest[1:]); !ok {
			return 0, nil, errNoTime
		}
		if rest = rest[3:]; len(rest) > 0 && rest[0] == '.' {
			if micros, rest, err = parseFraction(rest[1:], 6); err != nil {
				return 0, nil, err
			}
		}
	}
	switch {
	case !ok1 || !ok2:
		return 0, nil, errNoTime
	case h > 24 || m > 59 || s > 60 || h == 24 && (m > 0 || s > 0 || micros > 0):
		return 0, nil, errNoHour
	}
	return (h*3600+m*60+s)*second + micros, rest, nil
}

// parseFraction reads decimals as an integer of so many digits. Zeros beyond them
// change nothing.
func parseFraction(v []byte, digits int) (n int64, rest []byte, err error) {
	i := 0
	for ; i < len(v) && v[i]-'0' <= 9; i++ {
		switch {
		case i < digits:
			n = n*10 + int64(v[i]-'0')
		case v[i] != '0':
			return 0, nil, errTooFine
		}
	}
	if i == 0 {
		return 0, nil, errNoTime
	}
	for k := i; k < digits; k++ {
		n *= 10
	}
	return n, v[i:], nil
}

// parseOffset reads Z, UTC, +HH, +HHMM, +HH:MM or +HH:MM:SS, after a blank or not.
func parseOffset(v []byte) (seconds int64, zoned bool, err error) {
	if len(v) == 0 {
		return 0, false, nil
	}
	if v[0] == ' ' {
		v = v[1:]
	}
	switch {
	case string(v) == "+00" || string(v) == "Z" || string(v) == "UTC":
		return 0, true, nil
	case len(v) < 3 || v[0] != '+' && v[0] != '-':
		return 0, false, errNoTime
	}
	sign, n := int64(1), int64(0)
	if v[0] == '-' {
		sign = -1
	}
	colons := len(v) > 3 && v[3] == ':'
	v = v[1:]
	for i, limit := range []int64{15, 59, 59} { // the server's
		if i > 0 && len(v) > 0 && colons {
			if v[0] != ':' {
				return 0, false, errNoTime
			}
			v = v[1:]
		}
		part := int64(0)
		if i == 0 || len(v) > 0 || colons && i == 1 {
			ok := false
			if part, ok = two(v); !ok || i == 2 && !colons {
				return 0, false, errNoTime
			}
			v = v[2:]
		}
		if part > limit {
			return 0, false, errOffset
		}
		n = n*60 + part
	}
	if len(v) > 0 {
		return 0, false, errNoTime
	}
	return sign * n, true, nil
}

// inZone is the instant at which clocks in a zone show t, as the server has it: the later
// one where they show t twice; the one by the offset before where they skip t.
func inZone(t int64, zone *time.Location) (int64, error) {
	offset := func(t int64) int64 {
		_, s := time.UnixMicro(t).In(zone).Zone()
		return int64(s) * second
	}
	before, after := offset(t-oneDay), offset(t+oneDay)
	early, late := t-max(before, after), t-min(before, after)
	if offset(early) == max(before, after) && offset(late) != min(before, after) {
		late = early
	}
	if late < firstTime || late > lastTime {
		return 0, errRange
	}
	return late, nil
}

// parseNumber reads a number since 1970, of which so many decimals are left until
// microseconds.
func parseNumber(v []byte, decimals int) (int64, error) {
	at := 0
	for at < len(v) && v[at] != '.' {
		at++
	}
	n, err := parseInteger(v[:at])
	if err != nil {
		return 0, errNoNumber
	}
	fraction := int64(0)
	if at < len(v) {
		var rest []byte
		fraction, rest, err = parseFraction(v[at+1:], max(decimals, 0))
		switch {
		case err == errTooFine:
			return 0, err
		case err != nil || len(rest) > 0:
			return 0, errNoNumber
		}
	}
	for ; decimals < 0; decimals++ {
		if n%10 != 0 {
			return 0, errTooFine
		}
		n /= 10
	}
	for ; decimals > 0; decimals-- {
		if n > lastTime/10 || n < firstTime/10 {
			return 0, errRange
		}
		n *= 10
	}
	if v[0] == '-' {
		fraction = -fraction
	}
	if n += fraction; n < firstTime || n > lastTime {
		return 0, errRange
	}
	return n, nil
}

func parseInteger(v []byte) (int64, error) {
	neg := len(v) > 0 && v[0] == '-'
	if neg || len(v) > 0 && v[0] == '+' {
		v = v[1:]
	}
	if len(v) == 0 {
		return 0, errNoInteger
	}
	n := uint64(0)
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, errNoInteger
		}
		if n > math.MaxUint64/20 {
			return 0, errRange
		}
		n = n*10 + uint64(c-'0')
	}
	switch {
	case neg && n <= 1<<63:
		return -int64(n), nil
	case neg || n > math.MaxInt64:
		return 0, errRange
	}
	return int64(n), nil
}

// parseUUID reads the time of a version 7 uuid, which has milliseconds.
func parseUUID(v []byte) (int64, error) {
	if len(v) != 36 || v[14] != '7' {
		return 0, errNoUUID
	}
	n := int64(0)
	for i, c := range v {
		digit := int64(0)
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return 0, errNoUUID
			}
			continue
		case c >= '0' && c <= '9':
			digit = int64(c - '0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			digit = int64(c|0x20-'a') + 10
		default:
			return 0, errNoUUID
		}
		if i < 13 {
			n = n<<4 | digit
		}
	}
	return n * 1000, nil
}

// Append appends the value with that internal value, as the server reads it when
// its TimeZone is UTC.
func (c *Clock) Append(dst []byte, t int64) []byte {
	switch {
	case c.kind == integer:
		return fmt.Append(dst, t)
	case t == Infinity:
		return append(dst, "infinity"...)
	case t == MinusInfinity:
		return append(dst, "-infinity"...)
	}
	u := time.UnixMicro(t).UTC()
	switch c.kind {
	case day:
		return u.AppendFormat(dst, "2006-01-02")
	case wall:
		return u.AppendFormat(dst, "2006-01-02 15:04:05.999999")
	case uuid7:
		ms := uint64(u.UnixMilli())
		return fmt.Appendf(dst, "%08x-%04x-7000-8000-000000000000", ms>>16&0xffffffff, ms&0xffff)
	}
	return u.AppendFormat(dst, "2006-01-02 15:04:05.999999+00")
}

// two is a number of two digits.
func two(v []byte) (int64, bool) {
	if len(v) < 2 {
		return 0, false
	}
	a, b := v[0]-'0', v[1]-'0'
	return int64(a)*10 + int64(b), a <= 9 && b <= 9
}

// days since 1970 of a day of the Gregorian calendar.
func days(y, m, d int64) int64 {
	if m <= 2 {
		y, m = y-1, m+12
	}
	era := y / 400
	ofEra := y - era*400
	return era*146097 + ofEra*365 + ofEra/4 - ofEra/100 + (153*(m-3)+2)/5 + d - 1 - 719468
}

func monthDays(y, m int64) int64 {
	switch m {
	case 2:
		if y%4 == 0 && (y%100 != 0 || y%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// trim takes blanks off both ends.
func trim(v []byte) []byte {
	for len(v) > 0 && v[0] == ' ' {
		v = v[1:]
	}
	for len(v) > 0 && v[len(v)-1] == ' ' {
		v = v[:len(v)-1]
	}
	return v
}
