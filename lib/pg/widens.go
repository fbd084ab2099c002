package pg

import (
	"regexp"
	"strconv"
)

var varying = regexp.MustCompile(`^character varying\((\d+)\)$`)
var precise = regexp.MustCompile(`^numeric\(\d+,-?\d+\)$`)

// Widens reports whether every value of a type is one of the other type, the same to the
// last bit and digit: then COPY takes it, and it hashes alike.
func Widens(from, to string) bool {
	n := varying.FindStringSubmatch(from)
	switch m := varying.FindStringSubmatch(to); {
	case from == to:
		return true
	case n != nil && m != nil:
		a, err1 := strconv.Atoi(n[1])
		b, err2 := strconv.Atoi(m[1])
		return err1 == nil && err2 == nil && a <= b
	case n != nil || from == "character varying":
		return to == "text" || to == "character varying"
	}
	return from == "text" && to == "character varying" || precise.MatchString(from) && to == "numeric"
}
