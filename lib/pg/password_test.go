package pg

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestSplitPassword: what is left holds no password, and the two parts mean what
// the whole meant.
func TestSplitPassword(t *testing.T) {
	const secret = `s3cret`
	for _, s := range []string{
		"postgres://u:s3cret@h:5433/db?sslmode=disable", "postgresql://u:s3cret%40%3a%2f@h/db",
		"postgres://u@h/db?password=s3cret&sslmode=disable",
		"postgres://u@h/db?sslmode=disable&password=s3cret%26x", "postgres://u@h/db",
		"host=h user=u dbname=db password=s3cret",
		"password = 's3cret \\'x\\\\ y' host=h user=u", "host=h password=s3cret\\ x user=u", "host=h user=u",
		"host=h user=u\tpassword=s3cret\n",
		"user=u password='' host=h", "",
	} {
		without, password := SplitPassword(s)
		if strings.Contains(without, secret) {
			t.Errorf("%s: %s is left", s, without)
		}
		whole, err := pgx.ParseConfig(s)
		if err != nil {
			t.Fatal(err)
		}
		rest, err := pgx.ParseConfig(without)
		if err != nil {
			t.Errorf("%s: %s: %v", s, without, err)
			continue
		}
		if whole.Password != password || whole.Host != rest.Host || whole.User != rest.User ||
			whole.Database != rest.Database || whole.Port != rest.Port {
			t.Errorf("%s: split into %q and %q", s, without, password)
		}
	}
}
