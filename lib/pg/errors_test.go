package pg

import (
	"context"
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	for _, s := range []string{
		"postgres://me:s3cret@host/db",
		"postgres://me:s3cret@s3cret@host/db",
		"postgres://me:a/s3cret@host/db",
		"x postgresql://:s3cret@/db y",
		"host=h password=s3cret dbname=d",
		"password = 's3cret' host=h",
		`password='it\'s s3cret' host=h`,
		"PASSWORD=s3cret",
		"postgres://host/db?password=s3cret",
		"postgres://host/db?sslmode=require&password=s3cret&x=y",
		"postgres://host/db?sslpassword=s3cret",
		"sslpassword=s3cret",
	} {
		if got := Redact(s); strings.Contains(got, "s3cret") {
			t.Errorf("Redact(%q) = %q", s, got)
		}
	}
	for _, s := range []string{"no such host", "a:b@c", "postgres://me@host:5432/db",
		"password authentication failed for user \"me\""} {
		if got := Redact(s); got != s {
			t.Errorf("Redact(%q) = %q", s, got)
		}
	}
}

// TestConnectNeverTells connects with strings that are wrong in some way.
func TestConnectNeverTells(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what parses is not to be tried
	for _, s := range []string{
		"postgres://me:s3cret@host:port/db",
		"postgres://me:s3cret@ho st/db",
		"postgres://me:s3/cret@x@ho st/s3cret",
		"postgres://me:%zzs3cret@host/db",
		"host=h password=s3cret nonsense",
		"host=h password='s3cret",
		"host=h port=0 password=s3cret",
		"host=h password=s3cret sslmode=perhaps",
		"host=h password=s3cret connect_timeout=soon",
		"host=h password=s3cret service=nosuch",
		"host=h password=s3cret sslrootcert=/nosuch sslmode=verify-full",
		"s3cret",
	} {
		_, err := Connect(ctx, Target, s, Options{})
		if err == nil {
			t.Errorf("%q: connected", s)
			continue
		}
		if e := err.Error(); strings.Contains(e, "s3cret") || strings.Contains(e, "cret@") ||
			!strings.HasPrefix(e, "target: ") || strings.Contains(e, "\n") {
			t.Errorf("%q: %v", s, err)
		}
	}
}
