package pg

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Script reads the statements of an SQL script as pg_dump and pg_restore write
// it: with standard_conforming_strings on, and rows behind COPY FROM stdin. It
// runs no psql command: \restrict and \unrestrict are passed over, all others
// are an error, whatever a server has smuggled into its dump.
type Script struct {
	r    *bufio.Reader
	rows bool // those of the last statement have not been read to their end
}

// NewScript reads from r.
func NewScript(r io.Reader) *Script { return &Script{r: bufio.NewReaderSize(r, 1<<16)} }

// Statement is one statement with the comment lines before it.
type Statement struct {
	Comment string
	SQL     string // with its semicolon
}

// CopyIn reports whether rows follow in the script; see Script.Rows.
func (s *Statement) CopyIn() bool {
	return strings.HasPrefix(s.SQL, "COPY ") && strings.HasSuffix(s.SQL, " FROM stdin;")
}

// Next returns the next statement, io.EOF at the end. Rows that follow a COPY
// have to be read first.
func (s *Script) Next() (st Statement, err error) {
	if s.rows {
		return st, errors.New("rows of a COPY were not read")
	}
	if st.Comment, err = s.between(); err != nil {
		return st, err
	}
	l := lexer{r: s.r}
	if err := l.statement(); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return st, err
	}
	st.SQL = l.buf.String()
	if st.CopyIn() {
		if _, err := s.r.ReadString('\n'); err != nil {
			return st, io.ErrUnexpectedEOF
		}
		s.rows = true
	}
	return st, nil
}

// between reads what stands between two statements and returns the comments.
func (s *Script) between() (comments string, err error) {
	var b strings.Builder
	for {
		two, err := s.r.Peek(2)
		if len(two) == 0 {
			return "", err
		}
		c := two[0]
		switch {
		case c == ' ' || c == '\n' || c == '\t' || c == '\r':
			s.r.Discard(1)
			continue
		case string(two) != "--" && c != '\\':
			return b.String(), nil
		}
		line, err := s.r.ReadString('\n')
		switch {
		case err != nil && err != io.EOF:
			return "", err
		case c == '-':
			b.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		case !strings.HasPrefix(line, `\restrict `) && !strings.HasPrefix(line, `\unrestrict `):
			return "", fmt.Errorf("a psql command in the dump: %.20q", line)
		}
	}
}

// Rows are the rows behind the COPY that Next has returned, in COPY's text
// format, without the line that ends them.
func (s *Script) Rows() io.Reader { return &copyRows{s: s} }

type copyRows struct {
	s    *Script
	line []byte // what is left of a line
	part bool   // the line read last did not fit into the buffer
}

func (c *copyRows) Read(p []byte) (int, error) {
	if len(c.line) == 0 {
		if !c.s.rows {
			return 0, io.EOF
		}
		line, err := c.s.r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return 0, io.ErrUnexpectedEOF
		}
		if !c.part && string(line) == "\\.\n" {
			c.s.rows = false
			return 0, io.EOF
		}
		c.line, c.part = line, err == bufio.ErrBufferFull
	}
	n := copy(p, c.line)
	c.line = c.line[n:]
	return n, nil
}

// lexer reads one statement: up to the semicolon that is in no string, quoted
// name, comment, parentheses or body of a function in standard SQL.
type lexer struct {
	r      *bufio.Reader
	buf    bytes.Buffer
	parens int
	begins int      // BEGIN and CASE that wait for their END
	word   []byte   // that the lexer is in, lower case
	words  []string // the first of the statement
}

func (l *lexer) statement() error {
	for {
		c, err := l.read()
		if err != nil {
			return err
		}
		if isWord(c) && !(c == '$' && len(l.word) == 0) {
			l.word = append(l.word, lower(c))
			continue
		}
		before := l.endWord()
		switch c {
		case '\'':
			err = l.quoted('\'', before == "e")
		case '"':
			err = l.quoted('"', false)
		case '$':
			err = l.dollar()
		case '-', '/':
			err = l.comment(c)
		case '(':
			l.parens++
		case ')':
			l.parens--
		case ';':
			if l.parens <= 0 && l.begins <= 0 {
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

func (l *lexer) read() (byte, error) {
	c, err := l.r.ReadByte()
	if err == nil {
		l.buf.WriteByte(c)
	}
	return c, err
}

// endWord takes note of the word that has just ended, and returns it. The body
// of a function in standard SQL has statements of its own.
func (l *lexer) endWord() string {
	w := string(l.word)
	l.word = l.word[:0]
	if w == "" {
		return ""
	}
	if len(l.words) < 4 {
		l.words = append(l.words, w)
	}
	if routine.MatchString(strings.Join(l.words, " ")) && l.parens == 0 {
		switch {
		case w == "begin", w == "case" && l.begins > 0:
			l.begins++
		case w == "end" && l.begins > 0:
			l.begins--
		}
	}
	return w
}

var routine = regexp.MustCompile(`^create (or replace )?(function|procedure)\b`)

// quoted reads to the end of a string or name. A doubled quote is the end of one
// and the beginning of the next, which comes to the same.
func (l *lexer) quoted(quote byte, backslashes bool) error {
	for {
		c, err := l.read()
		switch {
		case err != nil:
			return err
		case c == quote:
			return nil
		case c == '\\' && backslashes:
			if _, err := l.read(); err != nil {
				return err
			}
		}
	}
}

// dollar reads a string in dollar quotes, if it is one.
func (l *lexer) dollar() error {
	tag := []byte{'$'}
	for {
		next, err := l.r.Peek(1)
		if err != nil {
			return err
		}
		if next[0] != '$' && !isWord(next[0]) {
			return nil // a parameter: $1
		}
		c, err := l.read()
		if err != nil {
			return err
		}
		if tag = append(tag, c); c == '$' {
			break
		}
	}
	from := l.buf.Len()
	for {
		c, err := l.read()
		if err != nil {
			return err
		}
		if c == '$' && bytes.HasSuffix(l.buf.Bytes()[from:], tag) {
			return nil
		}
	}
}

// comment reads to the end of a comment, if c begins one.
func (l *lexer) comment(c byte) error {
	next, err := l.r.Peek(1)
	if err != nil || c == '-' && next[0] != '-' || c == '/' && next[0] != '*' {
		return err
	}
	if c == '-' {
		line, err := l.r.ReadString('\n')
		l.buf.WriteString(line)
		return err
	}
	for depth, last := 0, c; ; {
		c, err := l.read()
		if err != nil {
			return err
		}
		switch {
		case last == '/' && c == '*':
			depth, c = depth+1, 0
		case last == '*' && c == '/':
			if depth, c = depth-1, 0; depth == 0 {
				return nil
			}
		}
		last = c
	}
}
