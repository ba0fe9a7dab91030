package progress

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal opens both ends of a terminal of that many columns.
func terminal(t *testing.T, columns uint16) (master, slave *os.File) {
	t.Helper()
	open := func(name string) *os.File {
		f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	master = open("/dev/ptmx")
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: 10}); err != nil {
		t.Fatal(err)
	}
	return master, open(fmt.Sprintf("/dev/pts/%d", number))
}

func TestTerminal(t *testing.T) {
	const long = "a line that is longer than forty columns are"
	for _, test := range []struct {
		name, value   string
		columns       uint16
		live, colours bool
	}{
		{"", "", 40, true, true},
		{"TERM", "xterm", 40, true, true},
		{"NO_COLOR", "1", 40, true, false},
		{"TERM", "dumb", 40, false, false},
		{"CI", "true", 40, false, false},
		{"", "", 0, true, true}, // unknown: taken for 80
	} {
		master, slave := terminal(t, test.columns)
		d := New(slave, env(test.name, test.value), func(line string) string { return line })
		d.Doing(long)
		d.Bad("b")
		d.Close()
		d.Printf("end")

		want := "✗ b\r\n"
		if test.colours {
			want = "\x1b[31m✗\x1b[0m b\r\n"
		}
		if test.live {
			line := long
			if test.columns > 0 {
				line = long[:38] + "…"
			}
			want = line + gone + want + line + gone
		}
		want += "end\r\n"
		var got strings.Builder
		for r := bufio.NewReader(master); !strings.HasSuffix(got.String(), "end\r\n"); {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			got.WriteString(line)
		}
		if got.String() != want {
			t.Errorf("%s=%s, %d columns: got %q, want %q", test.name, test.value, test.columns, &got, want)
		}
	}
}
