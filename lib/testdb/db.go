package testdb

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// patience bounds every statement of a test.
const patience = 2 * time.Minute

// DB is a database with the extension, fresh for one test.
type DB struct {
	ConnString string // as superuser, for the tools
	Install    Install
	Server     *Server
	Name       string

	mu   sync.Mutex
	conn *pgx.Conn // of Exec, Query1 and Rows
}

// New returns a fresh database on a shared server. There are two of each
// installation and edition, side "source" and side "target", with system
// identifiers of their own. The database is dropped when the test ends.
func New(t testing.TB, in Install, side string) *DB {
	t.Helper()
	return newDB(t, in, side, (*Server).database)
}

// NewSorted is New for a database that sorts text in its own way: locale is
// what CREATE DATABASE says about it.
func NewSorted(t testing.TB, in Install, side, locale string) *DB {
	t.Helper()
	return newDB(t, in, side, func(s *Server, t testing.TB, in Install) *DB {
		if s.given != "" {
			t.Skip("makes a database of its own, not on a server of the user's")
		}
		name := s.name()
		if err := s.createDatabase(name, in.Version, " template template0 "+locale); err != nil {
			t.Fatal(err)
		}
		return s.open(t, in, name)
	})
}

// NewPlain is New for a database of plain PostgreSQL, without the extension.
func NewPlain(t testing.TB, in Install, side string) *DB {
	t.Helper()
	return newDB(t, in, side, func(s *Server, t testing.TB, in Install) *DB {
		name := s.name()
		if err := s.admin("postgres", "create database "+name+" template template0"+copying(s.Install)); err != nil {
			t.Fatal(err)
		}
		return s.open(t, in, name)
	})
}

func newDB(t testing.TB, in Install, side string, make func(*Server, testing.TB, Install) *DB) *DB {
	t.Helper()
	s, err := sharedServer(in, side)
	if err != nil {
		t.Fatal(err)
	}
	from := s.log().size()
	t.Cleanup(func() { s.log().onFailure(t, s.Install, from) })
	d := make(s, t, in)
	t.Cleanup(func() {
		if err := s.admin("postgres", "drop database "+d.Name+" with (force)"); err != nil {
			t.Error(err)
		}
	})
	return d
}

// DB returns a fresh database on the server.
func (s *Server) DB(t testing.TB) *DB {
	t.Helper()
	return s.database(t, s.Install)
}

func (s *Server) database(t testing.TB, in Install) *DB {
	t.Helper()
	name := s.name()
	var err error
	if s.opts.jobs || s.given != "" {
		// A template would not get rid of its job scheduler.
		err = s.createDatabase(name, in.Version, "")
	} else {
		err = s.copyTemplate(name, in.Version)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.open(t, in, name)
}

func (s *Server) name() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.databases++
	return fmt.Sprintf("bf_test_%d_%d", os.Getpid(), s.databases)
}

// open returns a database that exists.
func (s *Server) open(t testing.TB, in Install, name string) *DB {
	d := &DB{ConnString: s.uri("postgres", name), Install: in, Server: s, Name: name}
	t.Cleanup(func() {
		if d.conn != nil {
			d.conn.Close(context.Background())
		}
	})
	return d
}

// copyTemplate makes a database from one that has the extension already, made
// when a version is first asked for: twenty times as fast as create extension.
func (s *Server) copyTemplate(name, version string) error {
	template := "template_" + strings.NewReplacer(".", "_", "-", "_").Replace(version)
	s.mu.Lock()
	once, ok := s.templates[version]
	if !ok {
		once = sync.OnceValue(func() error { return s.createDatabase(template, version, "") })
		s.templates[version] = once
	}
	s.mu.Unlock()
	if err := once(); err != nil {
		return err
	}
	return s.admin("postgres", "create database "+name+" template "+template+copying(s.Install))
}

// copying is what CREATE DATABASE is to be told of how it copies a template: by its
// files, which here takes less than half of what going through the log does.
func copying(in Install) string {
	if in.Major < 15 { // knows no other way
		return ""
	}
	return " strategy file_copy"
}

func (s *Server) createDatabase(name, version, options string) error {
	if err := s.admin("postgres", "create database "+name+options+copying(s.Install)); err != nil {
		return err
	}
	// Within one session TimescaleDB loads one version only: the first
	// statement about it has to name the one we want.
	return s.admin(name, "set client_min_messages = error", "create extension timescaledb version '"+version+"'")
}

// rolePassword is asked for by servers of the user's only.
const rolePassword = "bf"

// admin runs statements as superuser on a connection of its own.
func (s *Server) admin(database string, statements ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgconn.Connect(ctx, s.adminURI(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// Role returns a connection string of a role that owns the database and is no
// superuser, as applications have it; the extension stays the superuser's. The
// role is made if the server does not have it.
func (d *DB) Role(t testing.TB, name string) string {
	t.Helper()
	role := pgx.Identifier{name}.Sanitize()
	d.Server.mu.Lock() // roles are the cluster's: two tests may ask at once
	defer d.Server.mu.Unlock()
	var exists bool
	d.Query1(t, &exists, "select exists (select from pg_roles where rolname = $1)", name)
	if !exists {
		d.Exec(t, "create role "+role+" login password '"+rolePassword+"'")
	}
	d.Exec(t, "alter database "+d.Name+" owner to "+role)
	return d.Server.uri(name, d.Name)
}

// Conn returns a superuser's connection, closed when the test ends.
func (d *DB) Conn(t testing.TB) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.Server.adminURI(d.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// session lends the connection that Exec, Query1 and Rows share, so that what
// one of them sets holds for the next.
func (d *DB) session(t testing.TB, f func(context.Context, *pgx.Conn) error) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if d.conn == nil || d.conn.Ping(ctx) != nil { // at first, or the server was restarted
		conn, err := pgx.Connect(ctx, d.Server.adminURI(d.Name))
		if err != nil {
			t.Fatal(err)
		}
		d.conn = conn
	}
	if err := f(ctx, d.conn); err != nil {
		t.Fatal(err)
	}
}

// Reconnect has the next statement run in a new session: one that has dropped the
// extension cannot create it.
func (d *DB) Reconnect() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		d.conn.Close(context.Background())
		d.conn = nil
	}
}

// Exec runs SQL as superuser: without arguments any number of statements, in
// one transaction if there are several.
func (d *DB) Exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	d.session(t, func(ctx context.Context, conn *pgx.Conn) (err error) {
		if len(args) == 0 {
			_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
		} else {
			_, err = conn.Exec(ctx, sql, args...)
		}
		return explain(sql, err)
	})
}

// Query1 scans the single value of a query into dest.
func (d *DB) Query1(t testing.TB, dest any, sql string, args ...any) {
	t.Helper()
	d.session(t, func(ctx context.Context, conn *pgx.Conn) error {
		return explain(sql, conn.QueryRow(ctx, sql, args...).Scan(dest))
	})
}

// Rows returns the rows of a query as PostgreSQL prints them, null as "NULL".
func (d *DB) Rows(t testing.TB, sql string) (rows [][]string) {
	t.Helper()
	d.session(t, func(ctx context.Context, conn *pgx.Conn) error {
		results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		if err != nil {
			return explain(sql, err)
		}
		for _, values := range results[len(results)-1].Rows {
			row := make([]string, len(values))
			for i, v := range values {
				if row[i] = string(v); v == nil {
					row[i] = "NULL"
				}
			}
			rows = append(rows, row)
		}
		return nil
	})
	return rows
}

func explain(sql string, err error) error {
	if err != nil {
		return fmt.Errorf("%w\nin: %s", err, sql)
	}
	return nil
}
