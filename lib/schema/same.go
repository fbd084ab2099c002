package schema

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"bf/lib/pg"
)

// runner opens the session that makes the target.
func (c *sides) runner(ctx context.Context) (*runner, error) {
	dst, err := pg.Connect(ctx, pg.Target, c.Target, pg.Options{Application: Name, Log: c.Info})
	if err != nil {
		return nil, err
	}
	return &runner{conn: dst}, nil
}

// copyCatalogs makes the target in the way that TimescaleDB documents: a dump
// without the data of chunks, restored between timescaledb_pre_restore() and
// timescaledb_post_restore(). Chunks come with their names and numbers, empty.
func (c *clone) copyCatalogs(ctx context.Context) error {
	if err := c.lookUpHypertables(ctx); err != nil {
		return err
	}
	args := []string{"--no-subscriptions", "--no-publications", "--exclude-schema=__backfill",
		"--snapshot=" + c.snapshot,
		"--exclude-table-data=_timescaledb_internal._hyper_*",
		"--exclude-table-data=_timescaledb_internal.compress_hyper_*"}
	if err := c.lookUpReferring(ctx); err != nil {
		return err
	}
	for _, n := range slices.Concat(c.internals, c.referring) {
		args = append(args, "--exclude-table-data="+pg.Ident(n.Schema, n.Name))
	}
	whole, err := c.fitsLocks(ctx)
	if err != nil {
		return err
	}
	r, err := c.runner(ctx)
	if err != nil {
		return err
	}
	defer r.conn.Close()
	c.Info("%s; chunks come with their names, empty", c.route())
	err = c.restore(ctx, r, whole, args)
	switch {
	case err == nil:
		c.summary(c.scheduled())
	case whole:
		c.nothingMade(ctx)
	default:
		c.Warn("the target is half made: create the database again before the next try")
	}
	return err
}

// fitsLocks reports whether all can be made in one transaction: it holds a lock
// on each relation that it makes.
func (c *sides) fitsLocks(ctx context.Context) (bool, error) {
	var relations int
	err := c.conn.QueryRow(ctx, `select count(*) from pg_class
		where relnamespace <> all(array['pg_catalog', 'information_schema']::regnamespace[])`).Scan(&relations)
	return relations < c.target.locks, c.conn.Wrap(err, "count relations")
}

// restore runs the dump. Jobs would start as soon as restoring is over, so they are paused
// before that, in the catalog: in 2.21 and 2.22 alter_job refuses some.
func (c *clone) restore(ctx context.Context, r *runner, whole bool, args []string) error {
	var before []string
	for _, s := range sessionSettings {
		before = append(before, "set "+s+";")
	}
	before = append(before, searchPath)
	if whole {
		before = append([]string{"begin;"}, before...)
	}
	if !c.target.there {
		before = append(before, c.createExtension()...)
	}
	fn := c.dialect.fn
	before = append(before, "select "+fn("timescaledb_pre_restore")+"();")
	after := []string{"update " + c.jobsTable + " set scheduled = false where id >= 1000;",
		"select " + fn("timescaledb_post_restore") + "();"}
	if whole {
		after = append(after, "commit;")
	}
	run := func(label string, sql []string) error {
		r.label = label
		for _, s := range sql {
			if err := r.do(ctx, s); err != nil {
				return err
			}
		}
		return nil
	}
	if err := run("before the restore", before); err != nil {
		return err
	}
	err := stream(c.programs.command(ctx, "pg_dump", c.Source, args...), func(dump io.Reader) error {
		return pipe(ctx, dump, existing{r, append(c.target.schemas, c.target.extension)}, whole)
	})
	if err != nil {
		return err
	}
	return run("after the restore", after)
}

// existing runs statements on a database that may have some of the schemas already.
type existing struct {
	*runner
	schemas []string
}

func (e existing) do(ctx context.Context, sql string) error {
	return e.runner.do(ctx, existingSchema(sql, e.schemas))
}

// existingSchema adds IF NOT EXISTS to a statement that creates one of these schemas.
func existingSchema(sql string, schemas []string) string {
	if s, ok := strings.CutPrefix(sql, "CREATE SCHEMA "); ok {
		if name, _, ok := identifier(s); ok && slices.Contains(schemas, name) {
			return "CREATE SCHEMA IF NOT EXISTS " + s
		}
	}
	return sql
}

// route says from where to where, and with what.
func (c *sides) route() string {
	from := fmt.Sprintf("PostgreSQL %d", c.source.major)
	if c.src != nil {
		from += ", TimescaleDB " + c.version()
	}
	return fmt.Sprintf("%s to PostgreSQL %d, TimescaleDB %s, with pg_dump %d",
		from, c.target.major, c.target.version, c.programs.major)
}

// nothingMade says how to start again after a transaction that was rolled back.
func (c *sides) nothingMade(ctx context.Context) {
	if ctx.Err() == nil {
		c.Warn("nothing was made, the target is as empty as it was: correct what is wrong and run this again")
	}
}

// summary says what was made, and what is left to do; resume are the numbers of
// the jobs on the target that are scheduled on the source.
func (c *clone) summary(resume []int32) {
	c.Info("hypertables: %d, continuous aggregates: %d, jobs: %d; "+
		"their chunks are empty, plain tables have their rows as of now",
		len(c.plan.hypertables), len(c.plan.aggregates), len(c.plan.jobs))
	if len(c.referring) > 0 && !c.SchemaOnly {
		var tables []string
		var options strings.Builder
		for _, n := range c.referring {
			tables = append(tables, n.String())
			fmt.Fprintf(&options, " -t '%s'", strings.ReplaceAll(quote(n), "'", `'\''`))
		}
		c.Warn("without their rows, as they reference a hypertable: %s; "+
			"after the backfill copy them: pg_dump --data-only%s -d SOURCE | psql -d TARGET",
			strings.Join(tables, ", "), options.String())
	}
	for _, t := range c.tables {
		if len(t.triggers) > 0 && len(t.children) > 0 {
			c.Warn("%s: triggers before each inserted row: %s; drop on the target those that send rows to partitions",
				t.name, strings.Join(t.triggers, ", "))
		}
	}
	if len(resume) > 0 {
		slices.Sort(resume)
		c.Warn("paused on the target: jobs %s; after the backfill: %s", list(resume),
			c.dialect.resume(c.plan.jobs, c.jobsTable, list(resume)))
	}
	c.Info("not copied: roles, tablespaces, settings of the database and of roles, subscriptions, publications")
}

func list(ids []int32) string {
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(ids)), ", "), "[]")
}

// scheduled are the jobs that the source has scheduled and that alter_job resumes, by
// their numbers, which are the source's. It says how to resume the others.
func (c *clone) scheduled() (resume []int32) {
	var others []int32
	for _, j := range c.plan.jobs {
		switch {
		case !j.Scheduled:
		case c.dialect.pausable(j):
			resume = append(resume, j.ID)
		default:
			others = append(others, j.ID)
		}
	}
	if len(others) > 0 {
		c.Warn("paused on the target: jobs %s, which alter_job of TimescaleDB %s refuses; "+
			"after the backfill, as superuser: update %s set scheduled = true where id in (%[1]s);",
			list(others), c.target.version, c.jobsTable)
	}
	return resume
}
