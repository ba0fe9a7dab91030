package nix

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
)

// A stream adds more paths than may be unanswered, tells of those that the store has and of no others, and
// ends with what is wrong with the next.
func TestAddStream(t *testing.T) {
	const count = 2*unanswered + 10
	infos, nars, paths := make([]PathInfo, count), make([][]byte, count), make([]string, count)
	for i := range infos {
		infos[i], nars[i] = file(fmt.Sprint(i), fmt.Sprint("content ", i))
		infos[i].Path = fmt.Sprintf("/nix/store/%032d-stream", i)
		paths[i] = infos[i].Path
		if i > 0 {
			infos[i].References = []string{infos[i-1].Path}
		}
	}
	boom := errors.New("boom")
	eachDaemon(t, func(t *testing.T, n *Nix) {
		for name, test := range map[string]struct {
			at   int // where it ends
			next func(i int) (PathInfo, io.Reader, error)
			is   error // nil for any, if it does not end at count
		}{
			"whole":       {at: count},
			"none":        {at: 0, next: func(int) (PathInfo, io.Reader, error) { return PathInfo{}, nil, io.EOF }},
			"an error":    {at: unanswered + 7, next: func(int) (PathInfo, io.Reader, error) { return PathInfo{}, nil, boom }, is: boom},
			"a short NAR": {at: 40, next: func(i int) (PathInfo, io.Reader, error) { return infos[i], bytes.NewReader(nars[i][:50]), nil }, is: io.ErrUnexpectedEOF},
			"an odd path": {at: 30, next: func(i int) (PathInfo, io.Reader, error) {
				return PathInfo{Path: "/etc/passwd"}, bytes.NewReader(nars[i]), nil
			}},
			"another hash": {at: 20, next: func(i int) (PathInfo, io.Reader, error) {
				return infos[i], bytes.NewReader(bytes.ToUpper(nars[i])), nil
			}},
			"a connection's": {at: 10, next: func(i int) (PathInfo, io.Reader, error) { return infos[i], nil, io.ErrUnexpectedEOF }, is: io.ErrUnexpectedEOF},
		} {
			testbench.UseStore(t, t.TempDir())
			d, err := n.Connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			i := 0
			var added []string
			err = d.AddStream(func() (PathInfo, io.Reader, error) {
				if i == test.at && test.next != nil {
					return test.next(i)
				}
				if i == count {
					return PathInfo{}, nil, io.EOF
				}
				i++
				return infos[i-1], bytes.NewReader(nars[i-1]), nil
			}, func(info PathInfo) { added = append(added, info.Path) })
			_ = d.Close()
			whole := test.at == count || test.at == 0
			if (err == nil) != whole || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%s: got %v, want %v", name, err, test.is)
			}
			if !slices.Equal(added, paths[:test.at]) {
				t.Errorf("%s: it tells of %d paths, want %d", name, len(added), test.at)
			}
			valid, err := n.Valid(t.Context(), paths...)
			if err != nil {
				t.Fatal(err)
			}
			for i, info := range infos {
				if valid[info.Path] != (i < test.at) {
					t.Errorf("%s: path %d is valid: %t", name, i, valid[info.Path])
				}
			}
			verify(t, n)
		}
	})
}
