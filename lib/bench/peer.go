package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5/pgconn"
)

// The contests with timescaledb-backfill, TimescaleDB's own tool for the same job,
// where BENCH_PEER=PROGRAM names it. It stages for itself, with the same tables and
// chunks, and copies by as many connections as bf has lanes.
const (
	dense  = "20 compressed chunks"
	sparse = "20 well compressed chunks"

	ordered = `alter table %s set (timescaledb.compress, timescaledb.compress_segmentby = 'device_id',
        timescaledb.compress_orderby = 'time');`
)

// program is BENCH_PEER; "" for none.
func program() (string, error) {
	name := os.Getenv("BENCH_PEER")
	if name == "" {
		return "", nil
	}
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", fmt.Errorf("BENCH_PEER: %w", err)
	}
	return path, nil
}

// withPassword is a URI with the password that libpq takes from the environment, as the
// peer does not.
func withPassword(uri string) string {
	u, err := url.Parse(uri)
	password := os.Getenv("PGPASSWORD")
	if err != nil || u.User == nil || password == "" {
		return uri
	}
	if _, set := u.User.Password(); !set {
		u.User = url.UserPassword(u.User.Username(), password)
	}
	return u.String()
}

// against adds to a contest that the peer copies the same by n connections and
// verifies it; nothing where there is no peer.
func (h hypertables) against(c *contest, n int, emptied func() error, name string) {
	if h.peer == "" {
		return
	}
	parallel := []string{"--parallelism", strconv.Itoa(n)}
	c.variants = append(c.variants,
		&variant{peer: true, name: fmt.Sprintf("timescaledb-backfill, %d", n), prepare: func() error {
			if err := emptied(); err != nil {
				return err
			}
			stage := h.peers("stage", "--until", "2100-01-01", "--filter", `^public\.`+name+"$")
			cmd := exec.Command(stage[0], stage[1:]...)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			return nil
		}, run: func(m *meter) error { return m.pipe("", h.peers("copy", parallel...)) }},
		&variant{peer: true, name: fmt.Sprintf("timescaledb-backfill verify, %d", n),
			run: func(m *meter) error { return m.pipe("", h.peers("verify", parallel...)) }})
}

// compressedChunks copies many compressed chunks, of about 7 MB each where they hardly
// shrink, so that what each chunk costs besides its data shows.
func (h hypertables) compressedChunks(title, name string) *contest {
	emptied := func() error { return h.remake(name, wideTable, "", fmt.Sprintf(ordered, name)) }
	prepare := h.prepare(name, wideTable, "", fmt.Sprintf(ordered, name))
	c := &contest{name: title}
	for _, n := range []int{2, 8} {
		c.variants = append(c.variants,
			&variant{name: fmt.Sprintf("bf, %d lanes", n), prepare: prepare, run: h.lanes(n)},
			&variant{name: fmt.Sprintf("bf-verify, %d", n), run: h.verifies(n)})
		h.against(c, n, emptied, name)
	}
	var relations []string // compressed ones of the source
	for _, n := range []int{2, 8} {
		c.variants = append(c.variants, &variant{peer: true, name: fmt.Sprintf("their COPY alone, %d", n),
			prepare: func() (err error) {
				if err = emptied(); err == nil {
					relations, err = h.compressedRelations(name)
				}
				if err == nil {
					err = h.makeLike(relations)
				}
				return err
			}, run: func(m *meter) error { return h.copyAlone(m, relations, n) }})
	}
	c.judge = func(c *contest) {
		for i := 0; i+3 < len(c.variants); i += 4 {
			h.beside(c, title+": ", i, i+2, 0.85)
			h.beside(c, title+": ", i+1, i+3, 0.7)
		}
	}
	return c
}

// compressedRelations are those of a hypertable's chunks on the source.
func (h hypertables) compressedRelations(name string) (relations []string, err error) {
	ctx := context.Background()
	db, err := tsdb.Open(ctx, pg.Source, h.src.uri, pg.Options{})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	ht, err := db.HypertableFor(ctx, task.Name{Schema: "public", Name: name}, nil)
	if err != nil || ht == nil {
		return nil, fmt.Errorf("no hypertable %s: %w", name, err)
	}
	chunks, err := db.Chunks(ctx, ht.ID)
	if err != nil {
		return nil, err
	}
	for _, c := range chunks {
		relation, err := db.RelationName(ctx, c.RelationOID)
		if err != nil {
			return nil, err
		}
		relations = append(relations, relation)
	}
	return relations, nil
}

// makeLike makes plain tables on the target that are like them, copies.n. They store
// values as they come: no copy of batches can cost less.
func (h hypertables) makeLike(relations []string) error {
	ddl := "drop schema if exists copies cascade; create schema copies;"
	for i, relation := range relations {
		made, err := h.src.strings(fmt.Sprintf(`select format('create table copies.%%1$I (%%2$s); %%3$s', %[1]d,
                string_agg(format('%%I %%s', attname, format_type(atttypid, atttypmod)), ', ' order by attnum),
                string_agg(format('alter table copies.%%I alter %%I set storage external; ', %[1]d, attname), '')
                    filter (where attstorage <> 'p'))
            from pg_attribute where attrelid = %[2]s::regclass and attnum > 0 and not attisdropped`,
			i, pg.Literal(relation)))
		if err != nil {
			return err
		}
		ddl += made[0]
	}
	return h.dst.exec(ddl + "checkpoint")
}

// copyAlone copies them by n pairs of connections and does nothing else: the rest of a
// copy's time is all that can be saved.
func (h hypertables) copyAlone(m *meter, relations []string, n int) (err error) {
	next, failed := make(chan int, len(relations)), make(chan error, n)
	for i := range relations {
		next <- i
	}
	close(next)
	before := ownCPU()
	for range n {
		go func() { failed <- h.copyRelations(relations, next) }()
	}
	for range n {
		err = errors.Join(err, <-failed)
	}
	m.client += ownCPU() - before
	return err
}

func (h hypertables) copyRelations(relations []string, next <-chan int) error {
	ctx := context.Background()
	from, err := pgconn.Connect(ctx, h.src.uri)
	if err != nil {
		return err
	}
	defer from.Close(ctx)
	to, err := pgconn.Connect(ctx, h.dst.uri)
	if err != nil {
		return err
	}
	defer to.Close(ctx)
	for i := range next {
		r, w := io.Pipe()
		go func() {
			_, err := from.CopyTo(ctx, w, "copy "+relations[i]+" to stdout (format binary)")
			w.CloseWithError(err)
		}()
		_, err := to.CopyFrom(ctx, r, fmt.Sprintf(`copy copies."%d" from stdin (format binary)`, i))
		if err != nil {
			return err
		}
	}
	return nil
}

// beside checks one variant against one of the peer's, where there is a peer.
func (b *bench) beside(c *contest, what string, of, to int, limit float64) {
	if b.peer == "" {
		return
	}
	v, peer := c.variants[of], c.variants[to]
	b.check(what+v.name+": wall against "+peer.name, over(v, peer, wall), limit)
	b.check(what+v.name+": client CPU against "+peer.name, over(v, peer, client), 1)
}

// compressedData fills and compresses 20 chunks on the source.
func (h hypertables) compressedData(name, rows string) error {
	const days = 20
	if err := h.src.exec("drop table if exists " + name + "; " + table(name, wideTable, "") +
		fmt.Sprintf(ordered, name) +
		"insert into " + name + " " + fmt.Sprintf(rows, h.rows*7/5, days)); err != nil {
		return err
	}
	return h.src.exec("select compress_chunk(c) from show_chunks('" + name + "') c; checkpoint")
}
