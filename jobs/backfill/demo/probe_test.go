package demo
import ("testing";"fmt")
func TestProbe(t *testing.T){
 for _, w := range [][2]uint64{{2,1},{1,1},{2,2},{1,2},{1,0}} {
 faultWeights[0].weight=w[0]; faultWeights[1].weight=w[1]; faultWeights[2].weight=35-w[0]-w[1]
 for seed:=int64(1); seed<=4; seed++ {
 s:=Settings{2000,8,seed}
 thr:=map[string]int{}; kinds:=map[Fault]int{}
 for _,a:=range s.List(){ 
  for i:=1;i<=s.Failures(a.DID);i++{ f:=s.Fault(a.DID,i); kinds[f]++; if f==Throttle||f==Unavailable {thr[a.Host]++}}}
 fmt.Println(w, seed, thr, kinds)
 }}
}
