package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// samples returns a small stream of every kind. Their data frames are small so
// that parts have several of them.
func samples(t testing.TB) map[string][]byte {
	all := map[string][]byte{}
	for _, comp := range []string{"none", "zstd", "s2"} {
		var wire bytes.Buffer
		w := NewWriter(&wire, compression(t, comp))
		data := func(frames ...string) {
			for _, f := range frames {
				w.Write([]byte(f))
				must(t, w.flush())
			}
		}
		write := func(name string, f func()) {
			wire.Reset()
			w = NewWriter(&wire, compression(t, comp))
			f()
			must(t, w.Close(false))
			all[comp+" "+name] = bytes.Clone(wire.Bytes())
		}
		same := strings.Repeat("the same ", 12)
		write("binary", func() {
			must(t, w.Begin(header(1, Rows)))
			data("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00", same, same, same+"\xff\xff")
			must(t, w.EndPart(3))
			must(t, w.End())
		})
		write("text", func() {
			h := header(1, Rows)
			h.Parts[0].Format = Text
			must(t, w.Begin(h))
			data("1\tone\n2\t\\N\n", "1\tone\n2\t\\N\n", same+"\t\n")
			must(t, w.EndPart(5))
			must(t, w.End())
		})
		write("compressed chunk", func() {
			must(t, w.Begin(header(1, Compressed, Rows)))
			data(same, same)
			must(t, w.EndPart(2))
			data(same, same)
			must(t, w.EndPart(2))
			must(t, w.End())
		})
		write("tasks", func() {
			must(t, w.Begin(header(1, Rows)))
			data(same)
			must(t, w.EndPart(1))
			must(t, w.End())
			must(t, w.Begin(header(2)))
			must(t, w.End())
			must(t, w.Begin(header(3, Rows)))
			data(same)
			must(t, w.Abort("it broke", "57014"))
			must(t, w.Begin(header(4, Rows)))
			must(t, w.EndPart(0))
			must(t, w.End())
			must(t, w.Begin(header(1, Rows))) // task 1 once more, by the same bytes
			data(same)
			must(t, w.EndPart(1))
			must(t, w.End())
		})
	}
	all["nothing"] = seal(`Z{"tasks":0,"aborted":0,"stopped":true}`)
	return all
}

// TestDamage does everything to a stream that can happen to it. Whatever was
// done, a reader may accept only segments that are as they were written, in
// their order from the first, and must not come to a good end.
func TestDamage(t *testing.T) {
	for name, stream := range samples(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole, _, err := readAll(NewReader(bytes.NewReader(stream)), 100)
			if err != io.EOF {
				t.Fatal(err)
			}
			d := &damage{t, stream, whole, 0}
			d.bytes()
			d.pieces()
			d.random()
			d.followed()
			t.Logf("%d bytes, %d cases", len(stream), d.cases)
		})
	}
}

// damage is a stream that is damaged in all ways, one after the other.
type damage struct {
	*testing.T
	stream []byte
	whole  []segment // what it holds
	cases  int
}

// check reads a damaged stream: what is accepted was written, and the end is an error.
func (d *damage) check(damaged []byte, format string, args ...any) error {
	d.Helper()
	d.cases++
	if bytes.Equal(damaged, d.stream) {
		return nil
	}
	got, _, err := readAll(NewReader(bytes.NewReader(damaged)), 100)
	if len(got) > len(d.whole) || len(got) > 0 && !reflect.DeepEqual(got, d.whole[:len(got)]) {
		d.Fatalf("%s: accepted what was not written", fmt.Sprintf(format, args...))
	}
	if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNoEnd) && !errors.Is(err, ErrVersion) {
		d.Fatalf("%s: ended with %v", fmt.Sprintf(format, args...), err)
	}
	return err
}

// bytes damages each bit and each byte, and adds some.
func (d *damage) bytes() {
	stream := d.stream
	for i := range stream {
		if err := d.check(stream[:i], "cut at byte %d", i); !errors.Is(err, ErrNoEnd) ||
			!errors.Is(err, io.ErrUnexpectedEOF) {
			d.Fatalf("cut at byte %d: %v", i, err)
		}
	}
	for i := range len(stream) * 8 {
		damaged := bytes.Clone(stream)
		damaged[i/8] ^= 1 << (i % 8)
		d.check(damaged, "bit %d of byte %d flipped", i%8, i/8)
	}
	for i := range stream {
		d.check(slices.Delete(bytes.Clone(stream), i, i+1), "byte %d dropped", i)
		d.check(slices.Insert(bytes.Clone(stream), i, stream[i]), "byte %d doubled", i)
		d.check(append(bytes.Repeat([]byte{0}, i), stream[i:]...), "%d bytes zeroed", i)
	}
	for _, more := range []string{"\x00", "\n", "garbage", "garbage of some length", theMagic,
		string(stream[1:])} {
		d.check(append(bytes.Clone(stream), more...), "%.20q appended", more)
		d.check(append([]byte(more), stream...), "%.20q in front", more)
	}
}

// pieces drops, repeats and swaps frames and segments, whole ones.
func (d *damage) pieces() {
	pieces := cutUp(d.stream)
	join := func(p [][]byte) []byte { return slices.Concat(p...) }
	for i, p := range pieces {
		d.check(join(slices.Delete(slices.Clone(pieces), i, i+1)), "piece %d dropped", i)
		for j := range len(pieces) + 1 {
			d.check(join(slices.Insert(slices.Clone(pieces), j, p)), "piece %d repeated at %d", i, j)
		}
		for j := range i {
			s := slices.Clone(pieces)
			s[i], s[j] = s[j], s[i]
			d.check(join(s), "pieces %d and %d swapped", j, i)
			d.check(join(slices.Delete(slices.Clone(pieces), j, i+1)), "pieces %d to %d dropped", j, i)
		}
	}
	segments := bytes.SplitAfter(d.stream, []byte(theMagic))
	for i := 1; i < len(segments); i++ {
		d.check(join(slices.Delete(slices.Clone(segments), i, i+1)), "segment %d dropped", i)
		d.check(join(slices.Insert(slices.Clone(segments), i, segments[i])), "segment %d repeated", i)
		for j := 1; j < i; j++ {
			s := slices.Clone(segments)
			s[i], s[j] = s[j], s[i]
			d.check(join(s), "segments %d and %d swapped", j, i)
		}
	}
}

// random overwrites, drops and repeats what chance says.
func (d *damage) random() {
	stream := d.stream
	rnd := rand.New(rand.NewPCG(uint64(len(stream)), 7))
	for range 1000 {
		damaged := bytes.Clone(stream)
		i, n := rnd.IntN(len(stream)), 1+rnd.IntN(64)
		for j := i; j < min(i+n, len(stream)); j++ {
			damaged[j] = byte(rnd.Uint32())
		}
		d.check(damaged, "%d bytes overwritten at %d", n, i)
		j := i + rnd.IntN(len(stream)-i+1)
		d.check(slices.Delete(bytes.Clone(stream), i, j), "bytes %d to %d dropped", i, j)
		d.check(slices.Insert(bytes.Clone(stream), rnd.IntN(len(stream)+1), stream[i:j]...),
			"bytes %d to %d repeated", i, j)
	}
}

// followed has another stream follow, whole or not: that is no damage.
func (d *damage) followed() {
	stream, whole := d.stream, d.whole
	twice := slices.Concat(stream, stream)
	for cut := len(stream); cut <= len(twice); cut += 7 {
		got, _, err := readAll(NewReader(bytes.NewReader(twice[:cut])), 100)
		want := slices.Concat(whole, whole)
		if len(got) < len(whole) || len(got) > len(want) || len(got) > 0 &&
			!reflect.DeepEqual(got, want[:len(got)]) {
			d.Fatalf("two streams cut at byte %d: %d segments", cut, len(got))
		}
		if good := cut == len(stream) || cut == len(twice); good != (err == io.EOF) || !good &&
			!errors.Is(err, ErrNoEnd) {
			d.Fatalf("two streams cut at byte %d: %v", cut, err)
		}
	}
}

// cutUp cuts a stream into its magics and frames.
func cutUp(stream []byte) (pieces [][]byte) {
	frames, _ := split(stream)
	frames = slices.Insert(frames, 0, "")
	for _, f := range frames {
		n := len(f) + 4 + 4
		if f == "" {
			n = len(theMagic)
		}
		pieces = append(pieces, stream[:n])
		stream = stream[n:]
	}
	return pieces
}

// TestClaims: a frame that claims to be large is no reason to allocate.
func TestClaims(t *testing.T) {
	opened := seal("H" + headerJSON(header(1, Rows)))
	claim := func(in []byte, typ byte, n uint32) []byte {
		return append(bytes.Clone(in), typ, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	cost := func(in []byte) (uint64, error) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := readAll(NewReader(bytes.NewReader(in)), 10)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc, err
	}
	base, _ := cost(opened)
	for _, in := range [][]byte{[]byte(theMagic), opened} {
		for _, typ := range []byte("HDdETXZ") {
			for _, n := range []uint32{0, 1 << 16, 1<<16 + 1, MaxFrame, MaxFrame + 1, maxHeader, maxHeader + 1, 1 << 31,
				1<<32 - 1} {
				got, err := cost(claim(in, typ, n))
				over := int64(n) > int64(limit(typ))
				if over && !errors.Is(err, ErrCorrupt) || !over && !errors.Is(err, ErrNoEnd) {
					t.Errorf("frame %c of %d bytes: %v", typ, n, err)
				}
				if got > base+64<<10 {
					t.Errorf("frame %c of %d bytes: %d bytes allocated, %d without it", typ, n, got, base)
				}
			}
		}
	}
	// What does arrive may be kept, not much more.
	got, err := cost(append(claim([]byte(theMagic), 'H', maxHeader), make([]byte, 3<<20)...))
	if got > 10<<20 || !errors.Is(err, ErrNoEnd) {
		t.Errorf("3 MiB of a header: %d bytes allocated, %v", got, err)
	}
}

// TestMemory writes and reads a large part and looks at what was
// allocated on the way.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	block := content(MaxFrame + 100)
	for comp, most := range map[string]uint64{"none": 2 << 20, "s2": 8 << 20, "zstd": 16 << 20, "zstd:22": 64 << 20} {
		n := 128
		if comp == "zstd:22" {
			n = 16
		}
		pr, pw := io.Pipe()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		go func() {
			w := begin(t, pw, compression(t, comp))
			for range n {
				w.Write(block)
			}
			finish(t, w)
			pw.Close()
		}()
		if got := drain(t, NewReader(pr), make([]byte, 64<<10)); got != int64(n*len(block)) {
			t.Errorf("%s: read %d bytes", comp, got)
		}
		runtime.ReadMemStats(&after)
		got := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d KiB allocated in all", comp, got>>10)
		if got > most {
			t.Errorf("%s: %d bytes allocated", comp, got)
		}
	}
}

// TestArchived reads streams that were written when the format was settled:
// dumps are kept in files, and must be readable later.
func TestArchived(t *testing.T) {
	for name, stream := range samples(t) {
		codec, kind, _ := strings.Cut(name, " ")
		if kind != "tasks" {
			continue
		}
		want, _, err := readAll(NewReader(bytes.NewReader(stream)), 100)
		if err != io.EOF {
			t.Fatal(err)
		}
		f, err := os.Open("testdata/v1-" + codec + ".bf")
		must(t, err)
		defer f.Close()
		if got, aborted, err := readAll(NewReader(f), 100); err != io.EOF || !reflect.DeepEqual(got, want) ||
			len(aborted) != 1 {
			t.Errorf("%s: %v", f.Name(), err)
		}
	}
}

// FuzzReader feeds the reader anything, and the same with its checksums put
// right so that the fuzzer gets behind them. What comes to a good end must
// come out the same when written and read again.
func FuzzReader(f *testing.F) {
	for _, stream := range samples(f) {
		f.Add(stream)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzed(t, data)
		frames, rest := split(data)
		fuzzed(t, append(seal(frames...), rest...))
	})
}

func fuzzed(t *testing.T, data []byte) {
	whole, _, err := readAll(NewReader(bytes.NewReader(data)), 1000)
	slowly, _, again := readAll(NewReader(iotest.OneByteReader(bytes.NewReader(data))), 7)
	if !reflect.DeepEqual(whole, slowly) || err.Error() != again.Error() {
		t.Fatalf("%d segments, %v; byte by byte %d segments, %v", len(whole), err, len(slowly), again)
	}
	if err != io.EOF {
		return
	}
	var wire bytes.Buffer
	w := NewWriter(&wire, Compression{})
	r := NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if errors.As(err, new(*AbortError)) {
			continue
		}
		must(t, err)
		must(t, w.Begin(h))
		for {
			_, err := r.NextPart()
			if err == nil {
				_, err = io.Copy(w, r)
			}
			var abort *AbortError
			if errors.As(err, &abort) {
				must(t, w.Abort(abort.Message, abort.SQLState))
				break
			}
			if err == io.EOF {
				must(t, w.End())
				break
			}
			must(t, err)
			rows, _ := r.Part()
			must(t, w.EndPart(rows))
		}
	}
	must(t, w.Close(r.End().Stopped))
	rewritten, _, err := readAll(NewReader(&wire), 1000)
	if err != io.EOF || len(rewritten) != len(whole) {
		t.Fatalf("%d segments, written again %d, %v", len(whole), len(rewritten), err)
	}
	for i := range whole {
		if !reflect.DeepEqual(whole[i].parts, rewritten[i].parts) ||
			!reflect.DeepEqual(whole[i].rows, rewritten[i].rows) {
			t.Fatalf("segment %d changed", i)
		}
	}
}
