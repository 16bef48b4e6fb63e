// A model's likeliest tokens, from C++ and torch alone:  generate MODEL.pt TOKENS ID...
#include <torch/script.h>

#include <iostream>

int main(int words, char** word) {
  torch::NoGradGuard no_gradients;
  auto net = torch::jit::load(word[1]);
  std::vector<int64_t> prompt;
  for (int i = 3; i < words; ++i) prompt.push_back(std::stoll(word[i]));
  auto length = torch::tensor({static_cast<int64_t>(prompt.size())});
  auto made = net.get_method("prefill")({torch::tensor(prompt).unsqueeze(0), length}).toTuple();
  auto logits = made->elements()[0].toTensor();  // (1, V)
  for (int left = std::stoi(word[2]); left > 0; --left) {
    auto next = logits.argmax(-1, /*keepdim=*/true);  // (1, 1)
    std::cout << next.item<int64_t>() << std::endl;
    made = net.get_method("step")({next, made->elements()[1]}).toTuple();
    logits = made->elements()[0].toTensor().select(1, -1);
  }
}
