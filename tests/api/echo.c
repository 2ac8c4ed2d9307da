/* Sends back every datagram that comes to UDP port 80: BusyBox has no program for that. */
#include <arpa/inet.h>
#include <sys/socket.h>

int main(void)
{
	static char data[65536];
	struct sockaddr_in peer, own = { .sin_family = AF_INET, .sin_port = htons(80) };
	int server = socket(AF_INET, SOCK_DGRAM, 0);

	if (server < 0 || bind(server, (struct sockaddr *)&own, sizeof own) < 0)
		return 1;
	for (;;) {
		socklen_t length = sizeof peer;
		ssize_t size = recvfrom(server, data, sizeof data, 0, (struct sockaddr *)&peer, &length);

		if (size >= 0)
			sendto(server, data, size, 0, (struct sockaddr *)&peer, length);
	}
}
