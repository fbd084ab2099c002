package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// load is the work on one task, from its header to the commit.
type load struct {
	*session
	lane   *Loader
	reader *stream.Reader
	header *stream.Header
	task   *task.Task // as it is staged
	ht     *tsdb.Hypertable
	image  *tsdb.Image // the source chunk
	result *task.Result

	part  *stream.Part   // that is being read
	data  *pg.CopyReader // what is left of it
	chunk *tsdb.Chunk    // with the task's extent, as it was last read; nil for none

	seen       *sight          // what has been asked already
	madeOID    uint32          // of a chunk that was made
	held       string          // how the chunk is locked, with the turn
	indirect   bool            // rows must not be written to it
	dep        tsdb.Dependents // of the hypertable, as last read
	relation   *relation       // that the chunk is to have; nil for none
	table      *tsdb.Blueprint // of a table that can become the chunk
	made       bool            // chunks were made, as far as
	unmade     obstacle        // this allowed
	alike      bool            // the server has compressed the chunk, or not because
	unlike     obstacle        // its relation would be another one
	refreeze   bool            // the chunk ends frozen
	unanalyzed string          // the relation that was filled
}

// rounds bounds how often facts are gathered for one task.
const rounds = 8

// errChunkStateChanged is a chunk that is in another state than the decision was
// made for. Nothing of the data has been read yet.
var errChunkStateChanged = errors.New("its state was changed again and again")

// run does the next thing that decide says until the task is complete.
func (ld *load) run(ctx context.Context) error {
	err := ld.open(ctx)
	if err != nil || ld.result.Status == task.Gone {
		return err
	}
	for range rounds {
		f, err := ld.gather(ctx)
		if err != nil {
			return err
		}
		switch d := decide(f); d.method {
		case makeChunks:
			err = chunkMaker{ld}.make(ctx)
		case decompressChunk:
			err = emptier{ld}.decompress(ctx)
		case compressChunk:
			err = ld.relation.compressChunk(ctx)
		case askForRows:
			return byRows(ld.task, d.String())
		default:
			if err = ld.write(ctx, f, d); err != errChunkStateChanged {
				return err
			}
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return fault(ld.task.String(), "run the task again", "%w", errChunkStateChanged)
}

// open reads and checks the header, before anything is touched, and looks up what
// it is about.
func (ld *load) open(ctx context.Context) error {
	staged, skips, err := ld.lookUp(ctx)
	if err != nil {
		return err
	}
	ld.task = &staged.Task
	if staged.Worked != "" && !ld.lane.force {
		return queue.ErrDone
	}
	if ld.header.State == stream.StateGone {
		return ld.gone(ctx)
	}
	if len(ld.header.Parts) == 0 { // the dump failed before it had any data
		_, err := ld.reader.NextPart()
		return errOr(err, errors.New("no data"))
	}
	if ld.ht == nil {
		return fault(ld.task.Target().String(), "create it as on the source and run bf-stage again",
			"is not there any more")
	}
	if err := checkColumns(ld.ht, ld.header); err != nil {
		return err
	}
	if ld.image, err = image(ld.header); err != nil {
		return malformed(ld.task, err)
	}
	ld.result.Hidden, ld.result.Message = ld.image.Hidden, notCopied(ld)
	ld.refreeze = ld.image.Frozen
	if skips {
		ld.seen = nil // which may change
		if err := (unbinder{ld}).all(ctx); err != nil {
			return err
		}
	}
	if err := ld.nextPart(); err != nil {
		return err
	}
	return ld.notEmptied(ctx)
}

// lookUp looks up the task and its hypertable, and where its rows go: in one round trip,
// where the hypertable is that of the lane's last task.
func (ld *load) lookUp(ctx context.Context) (staged *queue.Entry, skips bool, err error) {
	var ask pgx.Batch
	var v tsdb.Version
	queue.AskStaged(&ask, ld.Conn, ld.task, &staged)
	tsdb.AskVersion(ld.DB, &ask, ld.task.Target(), ld.task.View, &v)
	var seen *sight
	if h := ld.lane.known.last; h != nil && len(ld.task.Slices) > 0 {
		seen = askSight(&ask, ld.DB, h, ld.task)
	}
	if err = ld.SendBatch(ctx, &ask).Close(); err != nil {
		return nil, false, err
	}
	if ld.ht, err = v.Hypertable(ctx, ld.DB); err != nil {
		return nil, false, err
	}
	if seen != nil && seen.ht == ld.ht {
		ld.seen = seen
	}
	ld.lane.known.last = ld.ht
	return staged, v.Skips, nil
}

// notEmptied refuses a command that printed no rows where the target has some: it is more
// likely that it was asked wrongly than that all of them have to go.
func (ld *load) notEmptied(ctx context.Context) error {
	if ld.task.Kind != task.KindExec || ld.lane.force {
		return nil
	}
	empty, err := ld.data.Empty(ld.part.Format)
	if err != nil || !empty {
		return err
	}
	cond, err := ld.ht.TaskCondition(ld.DB, ld.task)
	if err != nil {
		return err
	}
	var some bool
	err = ld.QueryRow(ctx, "select exists (select from "+ld.hypertable()+" where "+cond+")").Scan(&some)
	if err != nil {
		return ld.Wrap(err, "look into %s", ld.ht.Label())
	}
	if some {
		return fault(ld.task.String(), "if it is right that there are none: bf-load --force",
			"the command printed no rows, and the target has some in the range")
	}
	return nil
}

func (ld *load) nextPart() (err error) {
	ld.part, err = ld.reader.NextPart()
	ld.data = pg.NewCopyReader(ld.reader)
	return err
}

// malformed is a header that contradicts itself. Nothing was done about it.
func malformed(t *task.Task, err error) error {
	return &pg.Error{Side: pg.Target, Object: t.String(), Err: &queue.Refusal{Err: err},
		Hint: "was the stream written by another version of bf-dump?"}
}

// image reads the state of the source chunk from the header and checks that
// the parts are what it announces.
func image(h *stream.Header) (*tsdb.Image, error) {
	img := &tsdb.Image{}
	if len(h.Chunk) > 0 {
		if err := json.Unmarshal(h.Chunk, img); err != nil {
			return nil, fmt.Errorf("state of the source chunk: %w", err)
		}
	}
	var have []string
	for _, p := range h.Parts {
		have = append(have, p.Relation)
	}
	want := []string{stream.Rows}
	if img.Relation != nil {
		want = []string{stream.Compressed, stream.Rows}
	}
	if !slices.Equal(have, want) {
		return nil, fmt.Errorf("the stream brings %v, its header announces %v", have, want)
	}
	return img, nil
}

// checkColumns refuses data that the target's table cannot take.
func checkColumns(ht *tsdb.Hypertable, h *stream.Header) error {
	refuse := func(format string, args ...any) error {
		return fault(ht.Label().String(), "make the columns as on the source and run bf-stage again", format, args...)
	}
	mine := map[string]pg.Column{}
	for _, c := range ht.Columns {
		mine[c.Name] = c
	}
	for _, p := range h.Parts {
		if p.Relation != stream.Rows {
			continue
		}
		for _, c := range p.Columns {
			m, ok := mine[c.Name]
			delete(mine, c.Name) // twice the same column is one too many
			switch {
			case !ok:
				return refuse("has no column %q", c.Name)
			case m.Generated:
				return refuse("column %q is generated here", c.Name)
			case !pg.Widens(c.Type, m.Type):
				return refuse("column %q has type %s, the stream brings %s", c.Name, m.Type, c.Type)
			}
		}
	}
	return nil
}

// gone completes a task whose chunk the source has dropped.
func (ld *load) gone(ctx context.Context) error {
	if _, err := ld.reader.NextPart(); err != io.EOF { // the trailer proves it
		return errOr(err, errors.New("data of a chunk that is gone"))
	}
	ld.result.Message = "gone: the chunk was dropped on the source before it was copied"
	return ld.complete(ctx, task.Gone, func() error { return nil })
}

// say adds to what the result says.
func (ld *load) say(message string) {
	if ld.result.Message != "" && message != "" {
		message = "; " + message
	}
	ld.result.Message += message
}

// complete runs f in the transaction that claims and completes the task.
func (ld *load) complete(ctx context.Context, s task.Status, f func() error) error {
	defer ld.Rollback(ctx)
	if err := queue.Claim(ctx, ld.Conn, ld.task, ld.lane.force); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	ld.result.Status = s
	after := ""
	if ld.unanalyzed != "" {
		after = countsFirst(ld.session)
	}
	return queue.Complete(ctx, ld.Conn, ld.result, after)
}

// writer is a method at work.
type writer interface {
	// copy takes the data of the stream in, under locks that do not block the application.
	copy(ctx context.Context) error
	// finish puts it in its place, where copy has not: all of it has come.
	finish(ctx context.Context) error
}

func (ld *load) writer(f facts, d decision) writer {
	m := d.method
	rows := rowsInto{load: ld, facts: f, decision: d, alone: m == rowsCompress,
		root: m == rowsRoot || m == rowsCompress && (f.batches || !f.indirect.none())}
	switch m {
	case rowsTable:
		return tableAsChunk{ld}
	case rowsFresh, rowsExisting:
		return &compressedApart{load: ld, existing: m == rowsExisting}
	case rowsCompress:
		return &rowsThenCompressed{rows}
	case rawFresh, rawExisting:
		return &batchesInto{load: ld, existing: m == rawExisting}
	}
	return &rows
}

// write is what all methods have in common: claim, write, check the trailer,
// finish, freeze, complete.
func (ld *load) write(ctx context.Context, f facts, d decision) error {
	w := ld.writer(f, d)
	if rows, ok := w.(interface{ prepare(context.Context) error }); ok {
		if err := rows.prepare(ctx); err != nil {
			return err
		}
	}
	ld.result.Way, ld.result.WhyNotRaw, ld.result.LeftUncompressed = string(d.method), d.String(), d.left
	var logged *unlogger
	err := ld.complete(ctx, task.Loaded, func() (err error) {
		if err := ld.logReload(ctx); err != nil {
			return err
		}
		if err := w.copy(ctx); err != nil {
			return err
		}
		if _, err := ld.reader.NextPart(); err != io.EOF { // the trailer proves that all came
			return errOr(err, errors.New("another part where none was announced"))
		}
		if err := w.finish(ctx); err != nil {
			return err
		}
		if ld.refreeze && ld.chunk != nil {
			if err := ld.chunk.Freeze(ctx, ld.DB); err != nil {
				return err
			}
		}
		logged, err = newUnlogger(ctx, ld)
		return err
	})
	if err == nil && logged != nil {
		logged.run(ctx)
	}
	if err == nil && ld.unanalyzed != "" {
		ld.analyze(ctx, ld.unanalyzed)
	}
	return err
}

// lookAgain reads anew who is concerned by rows of the hypertable.
func (ld *load) lookAgain(ctx context.Context) (err error) {
	ld.dep, err = ld.ht.Dependents(ctx, ld.DB)
	return err
}

func changed(chunk task.Name) error {
	return fault("chunk "+chunk.String(), "run the task again", "changed while it was being loaded")
}

// hypertable is the quoted name of the hypertable.
func (ld *load) hypertable() string { return pg.Ident(ld.ht.Name.Schema, ld.ht.Name.Name) }

// beside is the quoted name of what rows beside the chunk's batches are written to.
func (ld *load) beside() string {
	if ld.indirect {
		return ld.hypertable()
	}
	return ld.chunk.Quoted()
}

// overlapping lists the chunks that rows of the task may be in. Those of other
// partitions are none of its business: they may be frozen, and a condition on the
// hash would not keep the server from decompressing all of their batches.
func (ld *load) overlapping(ctx context.Context) ([]*tsdb.Chunk, error) {
	return tsdb.Overlapping(ctx, ld.DB, ld.ht, ld.task.Range, ld.task.Slices)
}
