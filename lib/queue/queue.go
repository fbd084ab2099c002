// Package queue owns schema __backfill of the target and all SQL on it: the
// tasks of a backfill, what bf-caggs has to remember of aggregates, and the jobs
// that are paused.
package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"bf/lib/pg"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed schema.sql
	schemaSQL string
	//go:embed upgrade.sql
	upgradeSQL string
	//go:embed check.sql
	checkSQL string
)

// Schema is the name of bf's schema on the target. Tables that exist while a chunk
// is loaded are made there as well.
const Schema = "__backfill"

// Version of the __backfill schema that this package reads and writes.
const Version = 2

// ErrNone is returned by Check when the target has no __backfill schema.
var ErrNone = errors.New("no schema __backfill: nothing is staged")

// ErrOld is in the error of Check when the schema is of an older version. Create
// upgrades it; Count, the jobs and Drop do without.
var ErrOld = errors.New("it was made by an older bf")

// Check makes sure that the target's __backfill schema is there, trusted and of
// this version.
func Check(ctx context.Context, c *pg.Conn) error {
	fail := func(hint, format string, args ...any) error {
		return &pg.Error{Side: c.Side, Err: fmt.Errorf(format, args...), Hint: hint}
	}
	var there, trusted, whole, tables bool
	var owner string
	if err := c.QueryRow(ctx, checkSQL).Scan(&there, &owner, &trusted, &whole, &tables); err != nil {
		return c.Wrap(err, "schema __backfill")
	}
	switch {
	case !there:
		return &pg.Error{Side: c.Side, Err: ErrNone, Hint: "run bf-stage first"}
	case !trusted || !tables:
		return fail("have its owner drop it, or run as a role that is a member of the owner",
			"schema __backfill belongs to %q, or its tables carry triggers, rules or the like: it is not trusted",
			owner)
	case !whole:
		return fail("move it out of the way; bf makes its own",
			"schema __backfill is not bf's: it has no tables task and version")
	}
	var v int
	if err := c.QueryRow(ctx, "select version from __backfill.version").Scan(&v); err != nil {
		return fail("move it out of the way; bf makes its own", "schema __backfill is not bf's: %s", pg.Describe(err))
	}
	if v >= 1 && v < Version {
		return fail("run bf-stage with this bf, as you did before: it upgrades the schema and keeps the tasks",
			"schema __backfill has version %d: %w", v, ErrOld)
	}
	if v != Version {
		return fail("use the bf that made it", "schema __backfill has version %d, this bf knows version %d", v, Version)
	}
	return nil
}

// Create creates the schema unless it exists, and upgrades an older one. Two bf-stage
// may call it at the same time.
func Create(ctx context.Context, c *pg.Conn) error {
	err := Check(ctx, c)
	switch {
	case errors.Is(err, ErrOld):
		return upgrade(ctx, c)
	case !errors.Is(err, ErrNone):
		return err
	}
	_, err = c.Exec(ctx, schemaSQL)
	switch pg.Code(err) {
	case pg.DuplicateSchema, pg.UniqueViolation: // made by another stage in the meantime
		return Check(ctx, c)
	}
	return c.Wrap(err, "create schema __backfill")
}

// upgrade upgrades version 1 unless a command is connected that may know no other: it
// would take tasks of new kinds for chunks. One that connects meanwhile waits for the
// lock and finds the new version.
func upgrade(ctx context.Context, c *pg.Conn) error {
	err := pgx.BeginFunc(ctx, c.Conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "lock table __backfill.version in access exclusive mode"); err != nil {
			return err
		}
		n, err := AtWork(ctx, c, "bf-chunks", "bf-load", "bf-verify", "bf-caggs", "bf-clean")
		if err != nil {
			return err
		}
		if n > 0 {
			return &pg.Error{Side: c.Side, Hint: "let the lanes end, then run bf-stage again",
				Err: fmt.Errorf("schema __backfill of an older bf cannot be upgraded while %d commands of bf are "+
					"connected", n)}
		}
		var v int
		if err := tx.QueryRow(ctx, "select version from __backfill.version").Scan(&v); err != nil || v != 1 {
			return err // another bf-stage was faster
		}
		_, err = tx.Exec(ctx, upgradeSQL)
		return err
	})
	if err != nil {
		return c.Wrap(err, "upgrade schema __backfill")
	}
	return Check(ctx, c)
}

// Drop removes the schema.
func Drop(ctx context.Context, c *pg.Conn) error {
	_, err := c.Exec(ctx, "drop schema __backfill cascade")
	return c.Wrap(err, "drop schema __backfill")
}
