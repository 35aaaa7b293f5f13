/* Keeps a server on loopback that would listen on every address of the machine: bind()
 * of the wildcard becomes bind() of 127.0.0.1, for IPv6 sockets of its mapped form.
 *
 *   cc -shared -fPIC -O1 -o run/loopback.so loopback.c -ldl
 *   LD_PRELOAD=run/loopback.so some-server
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

int bind(int fd, const struct sockaddr *addr, socklen_t len) {
  int (*next)(int, const struct sockaddr *, socklen_t) = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "bind");
  struct sockaddr_storage own;
  if (len > sizeof own) return next(fd, addr, len);
  memcpy(&own, addr, len);
  if (addr->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
    struct sockaddr_in *in = (struct sockaddr_in *)&own;
    if (in->sin_addr.s_addr == htonl(INADDR_ANY)) in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  } else if (addr->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&own;
    if (IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr)) inet_pton(AF_INET6, "::ffff:127.0.0.1", &in6->sin6_addr);
  }
  return next(fd, (struct sockaddr *)&own, len);
}
