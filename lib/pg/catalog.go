package pg

import (
	"context"
	_ "embed"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed privileges.sql
	privilegesSQL string
	//go:embed locks.sql
	locksSQL string
)

// LockTimeout is how long a session of bf waits for a lock (settings.sql).
const LockTimeout = 10 * time.Second

// AskGrants asks for the statements that make a relation belong to those that the table
// belongs to: owner and privileges.
func AskGrants(ask *pgx.Batch, table uint32, relation string, grants *[]string) {
	ask.Queue(privilegesSQL, table, relation).QueryRow(Into(grants))
}

// Into is how the answer to a question of a batch is taken: a row.
func Into(to ...any) func(pgx.Row) error { return func(r pgx.Row) error { return r.Scan(to...) } }

// GrantAlike makes a relation belong to those that the table belongs to.
func (c *Conn) GrantAlike(ctx context.Context, table uint32, relation string) error {
	var ask pgx.Batch
	var grants []string
	AskGrants(&ask, table, relation, &grants)
	err := c.SendBatch(ctx, &ask).Close()
	if err == nil && len(grants) > 0 {
		_, err = c.Exec(ctx, strings.Join(grants, ";"))
	}
	return c.Wrap(err, "privileges of %s", relation)
}

// AlwaysIdentity lists the columns of a relation (quoted) that are generated
// always as identity: the server updates none of them.
func (c *Conn) AlwaysIdentity(ctx context.Context, relation string) (columns []string, err error) {
	err = c.QueryRow(ctx, `select coalesce(array_agg(attname::text), '{}') from pg_attribute
        where attrelid = $1::text::regclass and attidentity = 'a'`, relation).Scan(&columns)
	return columns, c.Wrap(err, "columns of %s", relation)
}

// Role returns the quoted name of the session's role.
func (c *Conn) Role(ctx context.Context) (role string, err error) {
	err = c.QueryRow(ctx, "select quote_ident(current_user)").Scan(&role)
	return role, c.Wrap(err, "role")
}

// LockRoom is what a statement on all children of a table takes of the server's
// lock table.
type LockRoom struct {
	Needed int64 // locks: one for each child and each of its indexes
	Slots  int64 // of the lock table
	Each   int64 // locks per slot (max_locks_per_transaction)
}

// LockRoom looks at a table.
func (c *Conn) LockRoom(ctx context.Context, table uint32) (r LockRoom, err error) {
	err = c.QueryRow(ctx, locksSQL, table).Scan(&r.Needed, &r.Each, &r.Slots)
	return r, c.Wrap(err, "room for locks")
}
