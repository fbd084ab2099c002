package testdb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
)

// given are, by side, connection strings of databases on servers that are not
// ours: the user's or containers. Tests then run on that one pair, in databases
// that they make there.
var given map[string]string

func useGiven(source, target string) ([]Install, error) {
	if source == "" || target == "" {
		return nil, errors.New("set both BF_TEST_SOURCE and BF_TEST_TARGET, or none")
	}
	from, err := describe(source)
	if err != nil {
		return nil, fmt.Errorf("BF_TEST_SOURCE: %w", err)
	}
	to, err := describe(target)
	if err != nil {
		return nil, fmt.Errorf("BF_TEST_TARGET: %w", err)
	}
	given = map[string]string{"source": source, "target": target}
	if from == to {
		return []Install{from}, nil
	}
	return []Install{from, to}, nil
}

// describe tells what a database runs.
func describe(uri string) (Install, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, uri)
	if err != nil {
		return Install{}, err
	}
	defer conn.Close(ctx)
	var in Install
	err = conn.QueryRow(ctx, `select current_setting('server_version_num')::int / 10000, extversion,
			current_setting('timescaledb.license') = 'timescale'
		from pg_extension where extname = 'timescaledb'`).Scan(&in.Major, &in.Version, &in.Full)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errors.New("the database does not have the extension timescaledb")
	}
	return in, err
}

// containers starts two, which are gone with this process, when there is no
// other way; why tells what was tried before.
func containers(why error) ([]Install, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(root, "scripts", "testbed"), "containers")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if _, err := lifeline(cmd); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(stdout)
	var uris []string
	for len(uris) < 2 && lines.Scan() {
		uris = append(uris, lines.Text())
	}
	if len(uris) < 2 {
		cmd.Wait()
		return nil, fmt.Errorf("%w%s", why, stderr.String())
	}
	return useGiven(uris[0], uris[1])
}

// redirect changes user and database of a connection string.
func redirect(conn, user, database string) string {
	u, err := url.Parse(conn)
	if err != nil || u.Scheme == "" {
		conn += " dbname=" + database // the last one counts
		if user != "postgres" {
			conn += " user='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(user) + "' password=" + rolePassword
		}
		return conn
	}
	u.Path = "/" + database
	if user != "postgres" {
		u.User = url.UserPassword(user, rolePassword)
	}
	return u.String()
}
