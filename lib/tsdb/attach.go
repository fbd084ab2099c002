package tsdb

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
)

var (
	//go:embed blueprint.sql
	blueprintSQL string
	//go:embed unattachable.sql
	unattachableSQL string
	//go:embed attachable.sql
	attachableSQL string
	//go:embed attachable_is.sql
	attachableIsSQL string
	//go:embed inherited.sql
	inheritedSQL string
)

// Attaches reports whether a plain table that is attached as a chunk becomes equal
// to one that the server made.
// ≤ 2.29.0: its columns are not marked as inherited: a later DROP COLUMN on the
// hypertable does not drop them, and every later insert into the chunk fails. Only a
// superuser can mark them, and then Attach does.
// ≤ 2.20: rows outside of the chunk's range are accepted, and matching indexes are
// built twice.
//
// A scratch hypertable in that schema tells, in a transaction that is rolled back;
// once per connection.
func (db *DB) Attaches(ctx context.Context, schema string) (bool, error) {
	if db.attaches == nil {
		yes := false
		if db.Full {
			var err error
			if yes, err = tryAttach(ctx, db, schema); err != nil {
				return false, err
			}
		}
		db.attaches = &yes
	}
	return *db.attaches, nil
}

func tryAttach(ctx context.Context, db *DB, schema string) (bool, error) {
	tx, err := db.Begin(ctx)
	if err != nil {
		return false, db.Wrap(err, "probe")
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	name := func(suffix string) string {
		return pg.Ident(schema, fmt.Sprint("probe_", db.PgConn().PID(), suffix))
	}
	sql := strings.NewReplacer("{scratch}", name(""), "{good}", name("_good"), "{bad}", name("_bad"),
		"{public}", pg.Ident(db.ExtensionSchema), "{functions}", pg.Ident(db.Functions)).Replace(attachableSQL)
	if _, err = tx.Exec(ctx, sql); err == nil {
		var yes bool
		if yes, err = likeNative(ctx, db, name("")); err == nil {
			return yes, nil
		}
	}
	if db.Lost() || ctx.Err() != nil {
		return false, db.Wrap(err, "probe")
	}
	return false, nil // whatever forbids it, there is another way
}

// likeNative reports whether the chunk that was attached to a scratch hypertable is like
// one of the server's own; for a superuser, whether it is after its columns and checks
// were marked as inherited.
func likeNative(ctx context.Context, db *DB, scratch string) (yes bool, err error) {
	ask := func() error { return db.QueryRow(ctx, attachableIsSQL, scratch).Scan(&yes) }
	if err = ask(); err != nil || yes || !db.Superuser {
		return yes, err
	}
	var chunk string
	err = db.QueryRow(ctx, "select min(inhrelid::regclass::text) from pg_inherits where inhparent = $1::text::regclass",
		scratch).Scan(&chunk)
	if err != nil {
		return false, err
	}
	if _, err = db.Exec(ctx, inheritedSQL, chunk); err != nil {
		return false, err
	}
	if err = ask(); err != nil || !yes {
		return false, err
	}
	db.marks = true
	err = db.QueryRow(ctx, "select to_regclass('_timescaledb_catalog.chunk_constraint_name') is not null").
		Scan(&db.serial)
	return yes, err
}

// Unattachable says why a plain table of that schema had better not become a chunk
// of h; "" if it may.
func Unattachable(ctx context.Context, db *DB, h *Hypertable, schema string) (why string, err error) {
	err = db.QueryRow(ctx, unattachableSQL, h.OID, schema).Scan(&why)
	return why, db.Wrap(err, "look up what depends on %s", h.Name)
}

// Blueprint is how to make a plain table like a hypertable.
type Blueprint struct {
	Name  string   // of the table, quoted
	Table []string // statements that make the empty table
	Build []string // statements that build the indexes and their constraints

	schema      string
	prefix      string   // of the indexes' names, before their number
	names       []string // of the indexes or constraints on the hypertable
	constraints []bool
}

// NewBlueprint looks up what a table must have to be like h. The names of its indexes
// are its own and a number until it is attached. Making it locks like, which is h
// or a chunk of it, against changes of its columns.
func NewBlueprint(ctx context.Context, db *DB, h *Hypertable, like, table task.Name) (*Blueprint, error) {
	b := &Blueprint{Name: pg.Ident(table.Schema, table.Name), schema: table.Schema, prefix: table.Name + "_"}
	var names [][]byte
	err := db.QueryRow(ctx, blueprintSQL, h.OID, b.Name, b.prefix, pg.Ident(like.Schema, like.Name)).
		Scan(&b.Table, &b.Build, &names, &b.constraints)
	for _, n := range names {
		b.names = append(b.names, string(n))
	}
	return b, db.Wrap(err, "look up indexes of %s", h.Name)
}

// Why Attach may fail although the table is fine.
var (
	// ErrCollision: the hypertable has a chunk there.
	ErrCollision = errors.New("there is a chunk already")
	// ErrOvertaken: another session made a chunk at the same time; roll back and
	// try again.
	ErrOvertaken = errors.New("another chunk was made at the same time")
)

// Attach makes the table of the blueprint the chunk with these slices. It locks
// the hypertable against the creation of other chunks until the transaction
// ends, which should be soon.
//
// The indexes get the names that the server would have chosen: it finds the
// constraint of a chunk by its name when the hypertable's is dropped or renamed.
// The names contain the number of the chunk, and only a superuser may rename
// what is in TimescaleDB's schema. So the number is read from the sequence
// beforehand, and ErrOvertaken says that the chunk got another one.
func (b *Blueprint) Attach(ctx context.Context, db *DB, h *Hypertable, want []task.Slice) (chunk task.Name, err error) {
	var id int32
	var prefix string
	err = db.QueryRow(ctx, `select last_value + is_called::int, associated_table_prefix
            from _timescaledb_catalog.chunk_id_seq, _timescaledb_catalog.hypertable where id = $1`, h.ID).
		Scan(&id, &prefix)
	if err != nil {
		return chunk, db.Wrap(err, "attach a chunk to %s", h.Name)
	}
	var serial []int64
	if db.serial {
		err = db.QueryRow(ctx, "select array(select nextval('_timescaledb_catalog.chunk_constraint_name') "+
			"from generate_series(1, $1::int))", len(b.names)).Scan(&serial)
		if err != nil {
			return chunk, db.Wrap(err, "number the constraints of a chunk of %s", h.Name)
		}
	}
	if sql := b.rename(id, fmt.Sprintf("%s_%d_chunk", prefix, id), serial); sql != "" {
		if _, err := db.Exec(ctx, sql); err != nil {
			return chunk, db.Wrap(err, "name the indexes of a chunk of %s", h.Name)
		}
	}
	var got int32
	var name task.Name
	var created bool
	err = db.QueryRow(ctx, "select chunk_id, schema_name, table_name, created from "+db.Fn("create_chunk")+
		"($1::oid::regclass, $2::text::jsonb, null, null, $3::text::regclass)",
		h.OID, slicesJSON(want), b.Name).Scan(&got, &name.Schema, &name.Name, &created)
	switch {
	case err == nil && !created, pg.Code(err) == "TS503":
		return chunk, ErrCollision
	case err != nil:
		return chunk, db.Wrap(err, "attach a chunk to %s", h.Name)
	case got != id:
		return chunk, ErrOvertaken
	}
	if db.marks {
		_, err = db.Exec(ctx, inheritedSQL, pg.Ident(name.Schema, name.Name))
	}
	return name, db.Wrap(err, "mark what chunk %s inherits", name)
}

// rename gives the indexes the names that the server gives to those of a chunk.
// ≤ 2.22: those of constraints have a serial number.
func (b *Blueprint) rename(id int32, chunk string, serial []int64) string {
	var sql strings.Builder
	taken := map[string]bool{}
	for i, parent := range b.names {
		var native string
		if b.constraints[i] && serial != nil {
			native = clip(fmt.Sprintf("%d_%d_%s", id, serial[i], parent), maxName)
		} else if b.constraints[i] {
			native = clip(fmt.Sprintf("%d_%s", id, parent), maxName)
		} else {
			native = objectName(chunk, parent, "")
			for n := 1; taken[native]; n++ {
				native = objectName(chunk, parent, fmt.Sprint("_", n))
			}
		}
		taken[native] = true
		fmt.Fprintf(&sql, "alter index %s rename to %s;", pg.Ident(b.schema, fmt.Sprint(b.prefix, i+1)),
			pg.Ident(native))
	}
	return sql.String()
}

const maxName = 63 // bytes of an identifier

// objectName builds a name as PostgreSQL's makeObjectName does: the longer part is
// shortened until all fits.
func objectName(a, b, label string) string {
	la, lb := len(a), len(b)
	for la+1+lb+len(label) > maxName {
		if la > lb {
			la--
		} else {
			lb--
		}
	}
	return clip(a, la) + "_" + clip(b, lb) + label
}

// clip shortens a string to at most n bytes, never within a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
