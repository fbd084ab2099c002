package pg

import (
	"net/url"
	"regexp"
	"strings"
)

// Where a connection string may hold a password: in a URI before the host or
// among the parameters, else as a key with a quoted or a bare value.
var (
	userPassword   = regexp.MustCompile(`^(postgres(?:ql)?://[^/@?:]*):([^/@?]*)(@.*)$`)
	queryPassword  = regexp.MustCompile(`^([^?]*\?(?:.*&)?)password=([^&]*)&?(.*)$`)
	quotedPassword = regexp.MustCompile(`(?s)^(|.*\s)password\s*=\s*'((?:[^'\\]|\\.)*)'(.*)$`)
	barePassword   = regexp.MustCompile(`(?s)^(|.*\s)password\s*=\s*((?:[^'\s\\]|\\.)(?:[^\s\\]|\\.)*|)(\s.*|)$`)
	escaped        = regexp.MustCompile(`(?s)\\(.)`)
)

// SplitPassword takes the password out of a connection string, for a program
// that gets the string as an argument, where others can read it, and the
// password in PGPASSWORD. It is "" where there is none.
func SplitPassword(connString string) (without, password string) {
	if strings.HasPrefix(connString, "postgres://") || strings.HasPrefix(connString, "postgresql://") {
		for _, re := range []*regexp.Regexp{userPassword, queryPassword} {
			if m := re.FindStringSubmatch(connString); m != nil {
				connString, password = m[1]+m[3], m[2]
				if p, err := url.PathUnescape(password); err == nil {
					password = p
				}
			}
		}
		return connString, password
	}
	for _, re := range []*regexp.Regexp{quotedPassword, barePassword} {
		if m := re.FindStringSubmatch(connString); m != nil {
			return m[1] + " " + m[3], escaped.ReplaceAllString(m[2], "$1")
		}
	}
	return connString, ""
}
