package pg

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// parse reads a connection string. A negative connect_timeout means none to libpq
// and is an error to pgx.
func parse(connString string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(connString)
	if err != nil && noTimeout.MatchString(connString) {
		return pgx.ParseConfig(noTimeout.ReplaceAllString(connString, "${1}0"))
	}
	return cfg, err
}

var noTimeout = regexp.MustCompile(`\b(connect_timeout\s*=\s*'?)-\d+`)

// libpqParams removes the parameters that libpq knows and pgx does not: pgx would
// send them to the server, which refuses them. Parameters without effect here are
// ignored; those that ask for more security than bf can give are an error.
func libpqParams(cfg *pgx.ConnConfig) error {
	take := func(name string) string {
		s := cfg.RuntimeParams[name]
		delete(cfg.RuntimeParams, name)
		return s
	}
	for _, name := range []string{
		"fallback_application_name", "client_encoding", // we have our own
		"load_balance_hosts",        // the hosts are tried in their order
		"sslcompression",            // libpq does not do it any more
		"sslkeylogfile",             // we keep no keys
		"gsslib", "gssdelegation"} { // we delegate nothing
		take(name)
	}
	for _, name := range []string{"sslcrl", "sslcrldir", "requirepeer", "scram_client_key", "scram_server_key",
		"oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope", "oauth_ca_file"} {
		if take(name) != "" {
			return fmt.Errorf("%s is not supported", name)
		}
	}
	if mode := take("gssencmode"); mode == "require" {
		return errors.New("gssencmode=require is not supported")
	}
	if r := strings.ToLower(take("replication")); !slices.Contains([]string{"", "false", "off", "no", "0"}, r) {
		return errors.New("replication is not supported: bf needs an ordinary session")
	}
	if err := hostaddr(cfg, take("hostaddr")); err != nil {
		return err
	}
	return tlsVersions(cfg, take("ssl_min_protocol_version"), take("ssl_max_protocol_version"))
}

// hostaddr connects to this address under the name in host, for which the
// certificate still has to be.
func hostaddr(cfg *pgx.ConnConfig, addr string) error {
	if addr == "" {
		return nil
	}
	another := func(f *pgconn.FallbackConfig) bool { return f.Host != cfg.Host }
	if strings.HasPrefix(cfg.Host, "/") || strings.Contains(addr, ",") || slices.ContainsFunc(cfg.Fallbacks, another) {
		return errors.New("hostaddr is supported with one address and one host")
	}
	cfg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{addr}, nil }
	return nil
}

// tlsVersions limits the versions of TLS, each "" for no limit.
func tlsVersions(cfg *pgx.ConnConfig, lowest, highest string) error {
	low, err := tlsVersion("ssl_min_protocol_version", lowest)
	if err != nil {
		return err
	}
	high, err := tlsVersion("ssl_max_protocol_version", highest)
	if err != nil {
		return err
	}
	if high > 0 && low > high {
		return errors.New("ssl_min_protocol_version is higher than ssl_max_protocol_version")
	}
	configs := []*tls.Config{cfg.TLSConfig}
	for _, f := range cfg.Fallbacks {
		configs = append(configs, f.TLSConfig)
	}
	for _, c := range configs {
		if c == nil {
			continue
		}
		if low > 0 {
			c.MinVersion = low
		}
		c.MaxVersion = high
	}
	return nil
}

// tlsVersion reads a version as libpq spells it; 0 for none.
func tlsVersion(name, s string) (uint16, error) {
	switch strings.ToLower(s) {
	case "":
		return 0, nil
	case "tlsv1":
		return tls.VersionTLS10, nil
	case "tlsv1.1":
		return tls.VersionTLS11, nil
	case "tlsv1.2":
		return tls.VersionTLS12, nil
	case "tlsv1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("%s is no version of TLS (TLSv1.2, TLSv1.3)", name)
}
