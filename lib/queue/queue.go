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
)

var (
	//go:embed schema.sql
	schemaSQL string
	//go:embed check.sql
	checkSQL string
)

// Version of the __backfill schema that this package reads and writes.
const Version = 1

// ErrNone is returned by Check when the target has no __backfill schema.
var ErrNone = errors.New("no schema __backfill: nothing is staged")

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
			"schema __backfill belongs to %q, or its tables carry triggers, rules or the like: it is not trusted", owner)
	case !whole:
		return fail("move it out of the way; bf makes its own", "schema __backfill is not bf's: it has no tables task and version")
	}
	var v int
	if err := c.QueryRow(ctx, "select version from __backfill.version").Scan(&v); err != nil {
		return fail("move it out of the way; bf makes its own", "schema __backfill is not bf's: %s", pg.Describe(err))
	}
	if v != Version {
		return fail("use the bf that made it", "schema __backfill has version %d, this bf knows version %d", v, Version)
	}
	return nil
}

// Create creates the schema unless it exists. Two bf-stage may call it at the same
// time.
func Create(ctx context.Context, c *pg.Conn) error {
	err := Check(ctx, c)
	if !errors.Is(err, ErrNone) {
		return err
	}
	_, err = c.Exec(ctx, schemaSQL)
	switch pg.Code(err) {
	case "42P06", "23505": // made by another stage in the meantime
		return Check(ctx, c)
	}
	return c.Wrap(err, "create schema __backfill")
}

// Drop removes the schema.
func Drop(ctx context.Context, c *pg.Conn) error {
	_, err := c.Exec(ctx, "drop schema __backfill cascade")
	return c.Wrap(err, "drop schema __backfill")
}
