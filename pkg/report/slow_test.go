package report
import ("testing";"time";"strings";"fmt")
func TestSlow(t *testing.T){
 for _, u := range []string{"`","a`","\x1b[","\x1b]","a\n","\n","\r","é","|","\x1b[0;","\xff", ">\n", " ", "\t", "``\n"} {
  s := strings.Repeat(u, 1000000/len(u))
  v := hostile(s)
  a:=time.Now(); md:=v.Summary(SummaryOptions{}); b:=time.Now(); v.Text(); c:=time.Now(); v.Annotations(); d:=time.Now(); structure(md); e:=time.Now()
  fmt.Printf("%q summary %v (%d B) text %v ann %v goldmark %v\n", u, b.Sub(a), len(md), c.Sub(b), d.Sub(c), e.Sub(d))
 }
}
