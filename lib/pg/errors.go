package pg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// Error is a failure on one side: it names the object, the SQLSTATE where the
// server gave one and, where it is known, what to do next.
type Error struct {
	Side   Side
	Object string // "chunk _timescaledb_internal._hyper_1_2_chunk"; may be empty
	Err    error
	Hint   string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Side))
	b.WriteString(": ")
	if e.Object != "" {
		b.WriteString(e.Object)
		b.WriteString(": ")
	}
	b.WriteString(Describe(e.Err))
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Wrap adds side and object to an error of this connection. It returns nil for
// nil, and leaves an error alone that names its side already.
func (c *Conn) Wrap(err error, object string, args ...any) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	e = &Error{Side: c.Side, Object: fmt.Sprintf(object, args...), Err: err, Hint: hint(err)}
	if c.Lost() && !errors.Is(err, context.Canceled) {
		e.Hint = "whatever was not committed is rolled back and stays pending: run the same again"
		if Code(err) == "" { // else the server said why
			e.Err = &lost{c.addr, err}
		}
	}
	return e
}

// lost is a connection that ended without an error message of the server. It
// replaces what the network reports ("unexpected EOF").
type lost struct {
	addr string
	err  error
}

func (e *lost) Error() string {
	why := connectError(e.err).Error()
	switch {
	case errors.Is(e.err, io.ErrUnexpectedEOF) || errors.Is(e.err, io.EOF):
		why = "it ended without a word from the server"
	case errors.Is(e.err, syscall.ETIMEDOUT):
		why = "no answer for too long"
	}
	return fmt.Sprintf("the connection to %s was lost: %s", e.addr, why)
}

func (e *lost) Unwrap() error { return e.err }

// Code returns the SQLSTATE of a server's error, or "".
func Code(err error) string {
	var p *pgconn.PgError
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

// Hint returns what the error suggests to do next, or "".
func Hint(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}

// The conditions that the tools act on.
const (
	UndefinedTable         = "42P01"
	UndefinedObject        = "42704"
	UndefinedSchema        = "3F000"
	DuplicateSchema        = "42P06"
	DuplicateTable         = "42P07"
	LockNotAvailable       = "55P03"
	NotSupported           = "0A000"
	Deadlock               = "40P01"
	InvalidRegexp          = "2201B"
	InvalidParameter       = "22023"
	InsufficientRight      = "42501"
	UniqueViolation        = "23505"
	NotInPrerequisiteState = "55000"
	NumericOutOfRange      = "22003"
	DatetimeOverflow       = "22008"
	TooManyConnections     = "53300"
	AdminShutdown          = "57P01"
	CrashShutdown          = "57P02"
	CannotConnectNow       = "57P03"
	Internal               = "XX000"
	Frozen                 = "TS101" // TimescaleDB: the chunk is
)

// Describe is the one line for people: the server's message, its detail and
// the SQLSTATE; the bare cause of anything else.
func Describe(err error) string {
	var p *pgconn.PgError
	if errors.As(err, &p) {
		s := p.Message
		if p.Detail != "" {
			s += " (" + strings.ReplaceAll(strings.TrimSpace(p.Detail), "\n", "; ") + ")"
		}
		return fmt.Sprintf("%s (SQLSTATE %s)", s, p.Code)
	}
	return err.Error()
}

func hint(err error) string {
	var p *pgconn.PgError
	if !errors.As(err, &p) {
		return ""
	}
	switch p.Code {
	case LockNotAvailable:
		return "another session holds a lock on it (pg_locks, pg_blocking_pids); run the task again"
	case "53200":
		return "if the server ran out of locks, raise max_locks_per_transaction"
	case "53100":
		return "the disk is full; nothing of this chunk was kept: free space and run again"
	case Deadlock, "40001":
		return "run the task again"
	case "22021":
		return "text that is not valid in its encoding (possible in a database of encoding SQL_ASCII) cannot " +
			"be copied: " +
			"correct it on the source, then run again"
	case InsufficientRight:
		// also where lc_messages is not English
		if p.Routine == "check_enable_rls" || p.Routine == "ExecWithCheckOptions" {
			return "row level security applies to the role: use one with BYPASSRLS, " +
				"or the owner of the table unless FORCE ROW LEVEL SECURITY is set"
		}
		return "run as the owner of the hypertables, or as a role that is a member of it"
	}
	return p.Hint
}

var (
	passwordURI = regexp.MustCompile(`(://[^:/@\s]*):\S*@`) // to the last @: a password may contain one
	passwordKV  = regexp.MustCompile(`(?i)(password\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)`)
)

// Redact takes passwords out of text that may hold a connection string.
func Redact(s string) string {
	return passwordKV.ReplaceAllString(passwordURI.ReplaceAllString(s, "$1:xxxxx@"), "${1}xxxxx")
}

func parseError(err error) error {
	msg := Redact(err.Error())
	// pgx repeats the whole string before the reason.
	if i := strings.LastIndex(msg, "`: "); i >= 0 {
		msg = msg[i+3:]
	}
	// The text in brackets may quote a part of a password.
	if s, _, ok := strings.Cut(msg, " ("); ok && strings.HasPrefix(s, "failed to parse") {
		msg = s
	}
	return errors.New(msg)
}

// connectError reduces pgx's several lines (one per address and sslmode tried)
// to the cause.
func connectError(err error) error {
	var p *pgconn.PgError
	if errors.As(err, &p) {
		return p
	}
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("no such host %q", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case errors.Is(err, syscall.ENOENT):
		return errors.New("no server listens on that socket")
	case errors.Is(err, context.Canceled):
		return errors.New("stopped")
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer in time")
	case errors.As(err, &op):
		return op.Err
	}
	var c *pgconn.ConnectError
	if errors.As(err, &c) && c.Unwrap() != nil {
		msg := strings.Split(Redact(c.Unwrap().Error()), "\n")
		return errors.New(strings.TrimSpace(msg[len(msg)-1]))
	}
	return errors.New(Redact(err.Error()))
}

func connectHint(err error) string {
	switch Code(err) {
	case "28P01", "28000":
		return "check user, password (PGPASSFILE, ~/.pgpass, service file) and pg_hba.conf"
	case "3D000":
		return "name the database in the connection string (dbname)"
	case "53300":
		return "each lane needs one connection per side; lower the parallelism or raise max_connections"
	}
	if Code(err) == "" && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)) {
		return "is the server running, and do host and port match?"
	}
	var dns *net.DNSError
	var slow net.Error
	switch {
	case errors.As(err, &dns):
		return "check the host name in the connection string"
	case Code(err) == "" && errors.As(err, &slow) && slow.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "check host and port, and what is between: a firewall drops packets without a word"
	}
	return ""
}
